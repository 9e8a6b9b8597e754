//! `lighter image`.

use super::look::{answer, table};
use super::runtime::settings;
use crate::cli::{ImageCommand, RuntimeOptions, Socket};
use crate::control;
use crate::exit::{USAGE, coded};
use cri_proto::Cri;
use cri_proto::v1::*;
use runtime::image::Store;
use std::path::Path;
use std::sync::Arc;

/// Dispatches to the CRI socket; `import`, for which CRI has no verb, elsewhere.
pub async fn run(command: ImageCommand) -> anyhow::Result<u8> {
    match command {
        ImageCommand::Ls(socket) => ls(&socket).await,
        ImageCommand::Pull {
            socket,
            image,
            creds,
        } => pull(&connect(&socket).await?, image, creds).await,
        ImageCommand::Rm { socket, images } => rm(&connect(&socket).await?, images).await,
        ImageCommand::Import { options, archive } => import(&options, &archive).await,
    }
}

async fn connect(socket: &Socket) -> anyhow::Result<Arc<dyn Cri>> {
    Ok(cri_proto::connect(&socket.socket).await?)
}

async fn ls(socket: &Socket) -> anyhow::Result<u8> {
    let listed = answer(&socket.socket, async {
        let cri = connect(socket).await?;
        Ok(cri.list_images(ListImagesRequest::default()).await?)
    });
    let images = listed.await?.images;
    let mut rows = vec![["IMAGE", "ID", "SIZE"].map(str::to_owned).to_vec()];
    for image in images {
        let id: String = image
            .id
            .trim_start_matches("sha256:")
            .chars()
            .take(13)
            .collect();
        let size = format!("{:.1} MB", image.size as f64 / 1e6);
        let names = if image.repo_tags.is_empty() {
            image.repo_digests
        } else {
            image.repo_tags
        };
        rows.extend(
            names
                .into_iter()
                .map(|name| vec![name, id.clone(), size.clone()]),
        );
    }
    print!("{}", table(&rows));
    Ok(0)
}

async fn pull(cri: &Arc<dyn Cri>, image: String, creds: Option<String>) -> anyhow::Result<u8> {
    let auth = match creds.as_deref().map(|c| c.split_once(':')) {
        None => None,
        Some(Some((username, password))) => Some(AuthConfig {
            username: username.into(),
            password: password.into(),
            ..Default::default()
        }),
        Some(None) => return Err(coded(USAGE, "--creds wants USER:PASSWORD")),
    };
    let image = ImageSpec {
        image,
        ..Default::default()
    };
    let request = PullImageRequest {
        image: Some(image),
        auth,
        sandbox_config: None,
    };
    let pulled = cri
        .pull_image(request)
        .await
        .map_err(|s| anyhow::anyhow!("{}", s.message()))?;
    println!("{}", pulled.image_ref);
    Ok(0)
}

async fn rm(cri: &Arc<dyn Cri>, images: Vec<String>) -> anyhow::Result<u8> {
    for image in images {
        let spec = ImageSpec {
            image: image.clone(),
            ..Default::default()
        };
        let known = cri.image_status(ImageStatusRequest {
            image: Some(spec.clone()),
            verbose: false,
        });
        if known.await?.image.is_none() {
            anyhow::bail!("no image {image:?}; `lighter image ls` lists what there is");
        }
        cri.remove_image(RemoveImageRequest { image: Some(spec) })
            .await?;
        println!("removed {image}");
    }
    Ok(0)
}

/// By the runtime that serves, or, when there is none, into the store itself.
async fn import(options: &RuntimeOptions, archive: &Path) -> anyhow::Result<u8> {
    super::need_root("image import")?;
    let config = settings(options)?;
    let imported = match control::import(&control::socket(&config), archive).await? {
        Some(imported) => imported,
        None => import_alone(config, archive).await?,
    };
    for name in imported {
        println!("imported {name}");
    }
    Ok(0)
}

async fn import_alone(config: ::runtime::Config, archive: &Path) -> anyhow::Result<Vec<String>> {
    let store = Store::open(config.images())?;
    let imported = match archive == Path::new("-") {
        true => store.import_stream(std::io::stdin(), None).await?,
        false => store.import(archive, None).await?,
    };
    Ok(control::names(&imported))
}
