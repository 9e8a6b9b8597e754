//! pull, images, inspecti, imagefsinfo, rmi.

use crate::cases;
use crate::kit::{BUSYBOX, Kit, NGINX, ids};
use anyhow::{Context, Result, ensure};

cases![
    pull_prints_the_image_and_takes_a_digest,
    pull_of_what_does_not_exist_names_it,
    images_are_listed_and_filtered,
    inspecti_shows_tags_and_digests,
    imagefsinfo_counts_bytes_and_inodes,
    rmi_removes_one_and_prunes_the_unused,
];

fn image_id(kit: &Kit, name: &str) -> Result<String> {
    let status = kit.json(&["inspecti", name])?;
    let id = status["status"]["id"]
        .as_str()
        .context("image without an id")?;
    Ok(id.to_owned())
}

fn pull_prints_the_image_and_takes_a_digest(kit: &Kit) -> Result<()> {
    let said = kit.ok(&["pull", NGINX])?;
    let id = image_id(kit, NGINX)?;
    ensure!(said.contains(&id), "pull said {said}, the image is {id}");
    let status = kit.json(&["inspecti", NGINX])?;
    let by_digest = status["status"]["repoDigests"][0]
        .as_str()
        .context("no digest")?;
    let said = kit.ok(&["pull", by_digest])?;
    ensure!(said.contains(&id), "pull by digest said {said}");
    Ok(())
}

fn pull_of_what_does_not_exist_names_it(kit: &Kit) -> Result<()> {
    let said = kit.fails(&["pull", "registry.k8s.io/no-such-image:1"])?;
    ensure!(said.contains("no-such-image"), "{said}");
    Ok(())
}

fn images_are_listed_and_filtered(kit: &Kit) -> Result<()> {
    kit.ok(&["pull", NGINX])?;
    let (busybox, nginx) = (image_id(kit, BUSYBOX)?, image_id(kit, NGINX)?);
    let all = kit.ok(&["images", "--quiet", "--no-trunc"])?;
    ensure!(
        ids(&all).contains(&&*busybox) && ids(&all).contains(&&*nginx),
        "{all}"
    );
    let one = kit.json(&["images", "--output=json", NGINX])?;
    let images = one["images"].as_array().context("no list")?;
    ensure!(images.len() == 1 && images[0]["id"] == *nginx, "{one}");
    let table = kit.ok(&["images", "--digests"])?;
    let line = table
        .lines()
        .find(|l| l.starts_with("docker.io/library/nginx"));
    let line = line.with_context(|| format!("no line for nginx: {table}"))?;
    ensure!(line.contains("1.26") && line.contains("MB"), "{line}");
    Ok(())
}

fn inspecti_shows_tags_and_digests(kit: &Kit) -> Result<()> {
    let status = kit.json(&["inspecti", BUSYBOX])?;
    let status = &status["status"];
    let tags = status["repoTags"].as_array().context("no repoTags")?;
    ensure!(tags.iter().any(|t| t == BUSYBOX), "{status}");
    let size: u64 = status["size"].as_str().context("no size")?.parse()?;
    ensure!(size > 100_000, "size {size}");
    // A unique start of an id names the image too: that is what crictl prints.
    let id = status["id"].as_str().context("no id")?;
    let short = id.trim_start_matches("sha256:")[..13].to_owned();
    let same = kit.json(&["inspecti", &short])?;
    ensure!(same["status"]["id"] == id, "{short} is {same}");
    let said = kit.fails(&["inspecti", "registry.k8s.io/no-such-image:1"])?;
    ensure!(said.contains("no-such-image"), "{said}");
    Ok(())
}

fn imagefsinfo_counts_bytes_and_inodes(kit: &Kit) -> Result<()> {
    let info = kit.json(&["imagefsinfo"])?;
    let filesystem = &info["status"]["imageFilesystems"][0];
    let number = |field: &str| -> Result<u64> {
        let text = filesystem[field]["value"].as_str();
        Ok(text
            .with_context(|| format!("no {field}: {info}"))?
            .parse()?)
    };
    ensure!(number("usedBytes")? > 100_000, "{info}");
    ensure!(number("inodesUsed")? > 10, "{info}");
    let path = filesystem["fsId"]["mountpoint"]
        .as_str()
        .context("no mountpoint")?;
    ensure!(kit.stand.machine.path(path).is_dir(), "no directory {path}");
    Ok(())
}

fn rmi_removes_one_and_prunes_the_unused(kit: &Kit) -> Result<()> {
    kit.ok(&["pull", NGINX])?;
    let said = kit.ok(&["rmi", NGINX])?;
    ensure!(said.contains("nginx"), "{said}");
    let left = kit.ok(&["images", "--quiet", NGINX])?;
    ensure!(left.trim().is_empty(), "still there: {left}");
    kit.fails(&["rmi", NGINX])?;
    kit.ok(&["pull", NGINX])?;
    let pod = kit.pod()?;
    pod.start(&["sleep", "600"])?;
    kit.ok(&["rmi", "--prune"])?;
    let left = kit.ok(&["images", "--output=json"])?;
    ensure!(
        left.contains(BUSYBOX),
        "the image of a container was pruned"
    );
    ensure!(!left.contains("nginx"), "nginx was not pruned: {left}");
    Ok(())
}
