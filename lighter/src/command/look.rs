//! `lighter ps` and `logs`: a look at a running node without crictl.

use crate::cli::{LogsArgs, PsArgs};
use anyhow::{Context, bail};
use cri_proto::Cri;
use cri_proto::v1::*;
use std::io::{self, Write};
use std::sync::Arc;

/// As many digits of an id as crictl shows.
const SHORT_ID: usize = 13;

/// Columns of left-aligned cells, two spaces between.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |c| {
        rows.iter()
            .filter_map(|r| r.get(c))
            .map(|s: &String| s.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// Containers with their pods.
pub async fn ps(args: &PsArgs) -> anyhow::Result<u8> {
    let cri = cri_proto::connect(&args.socket.socket).await?;
    let filter = (!args.all).then(|| ContainerFilter {
        state: Some(ContainerStateValue {
            state: ContainerState::ContainerRunning.into(),
        }),
        ..Default::default()
    });
    let mut containers = cri
        .list_containers(ListContainersRequest { filter })
        .await?
        .containers;
    containers.sort_by_key(|c| std::cmp::Reverse(c.created_at));
    let header = [
        "CONTAINER",
        "NAME",
        "STATE",
        "ATTEMPT",
        "POD",
        "NAMESPACE",
        "IMAGE",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(containers.iter().map(row));
    print!("{}", table(&rows));
    Ok(0)
}

fn row(c: &Container) -> Vec<String> {
    let label = |key: &str| c.labels.get(key).cloned().unwrap_or_default();
    let metadata = c.metadata.clone().unwrap_or_default();
    let state = c
        .state()
        .as_str_name()
        .trim_start_matches("CONTAINER_")
        .to_lowercase();
    vec![
        c.id.chars().take(SHORT_ID).collect(),
        metadata.name,
        state,
        metadata.attempt.to_string(),
        label("io.kubernetes.pod.name"),
        label("io.kubernetes.pod.namespace"),
        c.image
            .as_ref()
            .map(|i| i.user_specified_image.clone())
            .unwrap_or_default(),
    ]
}

async fn status(cri: &Arc<dyn Cri>, id: &str) -> anyhow::Result<ContainerStatus> {
    let request = ContainerStatusRequest {
        container_id: id.to_owned(),
        verbose: false,
    };
    let status = cri.container_status(request).await;
    let status = status
        .map_err(|s| anyhow::anyhow!("{}", s.message()))?
        .status;
    status.with_context(|| format!("the runtime knows no status of container {id}"))
}

/// The log file as it stands, without its time stamps.
pub async fn logs(args: &LogsArgs) -> anyhow::Result<u8> {
    let cri = cri_proto::connect(&args.socket.socket).await?;
    let path = status(&cri, &args.container).await?.log_path;
    if path.is_empty() {
        bail!("container {} has no log file", args.container);
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("read the log {path}"))?;
    for line in text.lines() {
        let mut fields = line.splitn(4, ' ').skip(1);
        let stream = fields.next().unwrap_or_default();
        let end = if fields.next() == Some("P") { "" } else { "\n" };
        let content = fields.next().unwrap_or_default();
        if stream == "stderr" {
            write!(io::stderr(), "{content}{end}")?;
        } else {
            write!(io::stdout(), "{content}{end}")?;
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_aligns_columns_and_leaves_no_trailing_space() {
        let rows = vec![
            vec!["ID".into(), "NAME".into()],
            vec!["1234".into(), "x".into()],
        ];
        assert_eq!(table(&rows), "ID    NAME\n1234  x\n");
    }
}
