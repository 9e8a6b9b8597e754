//! `lighter ps` and `logs`: a look at a running node without crictl.

use crate::cli::{LogsArgs, PsArgs};
use anyhow::{Context, bail};
use cri_proto::Cri;
use cri_proto::v1::*;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

/// As many digits of an id as crictl shows.
const SHORT_ID: usize = 13;

/// Longer than a runtime takes to start when its socket is asked, and to tell what it knows. A
/// socket may also be there with nobody behind it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is said on a socket, or that nothing is.
pub async fn answer<T>(
    socket: &str,
    asked: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    within(PATIENCE, socket, asked).await
}

async fn within<T>(
    patience: Duration,
    socket: &str,
    asked: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(patience, asked).await;
    answer.unwrap_or_else(|_| {
        bail!(
            "no answer on {socket} within {patience:?}: it is there, but does a runtime serve it?"
        )
    })
}

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
    let filter = (!args.all).then(|| ContainerFilter {
        state: Some(ContainerStateValue {
            state: ContainerState::ContainerRunning.into(),
        }),
        ..Default::default()
    });
    let socket = &args.socket.socket;
    let listed = answer(socket, async {
        let cri = cri_proto::connect(socket).await?;
        Ok(cri
            .list_containers(ListContainersRequest { filter })
            .await?)
    });
    let mut containers = listed.await?.containers;
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
    let socket = &args.socket.socket;
    let status = answer(socket, async {
        status(&cri_proto::connect(socket).await?, &args.container).await
    });
    let path = status.await?.log_path;
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

    #[tokio::test]
    async fn socket_that_nobody_serves_is_named() {
        let path = std::env::temp_dir().join(format!("lighter-ps-{}.sock", std::process::id()));
        let _bound = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let socket = path.display().to_string();
        let listed = within(Duration::from_millis(200), &socket, async {
            let cri = cri_proto::connect(&socket).await?;
            Ok(cri.list_containers(Default::default()).await?)
        });
        let said = listed.await.unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(
            said.contains(&socket) && said.contains("no answer"),
            "{said}"
        );
    }
}
