//! One execution of one plugin.

use crate::defaults::PLUGIN_DEADLINE;
use serde::Deserialize;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Largest output of a plugin that is read.
const MAX_OUTPUT: u64 = 4 * 1024 * 1024;
/// What of a plugin's stderr is told, from its end.
const TOLD: usize = 500;

/// Why a plugin's execution failed.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// There is no such program.
    #[error("no such plugin in {0}; install it, or correct the configuration")]
    Missing(String),
    /// It can't be executed.
    #[error("execute {}", path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// It said why not.
    #[error("{msg} (code {code}){}", details_text(details))]
    Told {
        /// Of the specification, or above 99 the plugin's own.
        code: u32,
        /// In a few words.
        msg: String,
        /// In more.
        details: String,
    },
    /// It failed without saying why in JSON.
    #[error("{status}: {stderr}")]
    Failed {
        /// How it ended.
        status: String,
        /// The end of its stderr.
        stderr: String,
    },
    /// It took too long and was killed.
    #[error("no answer within {} s; killed", PLUGIN_DEADLINE.as_secs())]
    Deadline,
    /// Its answer is no JSON.
    #[error("its answer is no JSON")]
    Answer(#[source] serde_json::Error),
}

fn details_text(details: &str) -> String {
    if details.is_empty() {
        String::new()
    } else {
        format!(": {details}")
    }
}

/// Executes a plugin with this process's own `CNI_*`, as one plugin does for
/// another.
pub async fn execute(plugin: &str, path: &[PathBuf], config: Value) -> Result<Value, PluginError> {
    let env = Vec::new();
    Execution {
        plugin,
        path,
        env,
        config,
    }
    .run()
    .await
}

/// What one execution is told.
#[derive(Debug)]
pub struct Execution<'a> {
    /// The plugin's type.
    pub plugin: &'a str,
    /// Where it is looked for, in order.
    pub path: &'a [PathBuf],
    /// `CNI_*`.
    pub env: Vec<(&'static str, String)>,
    /// On its stdin.
    pub config: Value,
}

impl Execution<'_> {
    /// Runs the plugin; null when it had nothing to say.
    pub async fn run(self) -> Result<Value, PluginError> {
        let path = self.find()?;
        let spawned = Command::new(&path)
            .envs(self.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let child = spawned.map_err(|source| PluginError::Spawn {
            path: path.clone(),
            source,
        })?;
        let output = tokio::time::timeout(PLUGIN_DEADLINE, talk(child, &self.config)).await;
        let output = output.map_err(|_| PluginError::Deadline)?;
        let output = output.map_err(|source| PluginError::Spawn { path, source })?;
        output.judge()
    }

    fn find(&self) -> Result<PathBuf, PluginError> {
        let candidates = self.path.iter().map(|dir| dir.join(self.plugin));
        let found = candidates.into_iter().find(|path| path.is_file());
        found.ok_or_else(|| {
            PluginError::Missing(
                self.path
                    .iter()
                    .map(|p| p.display().to_string())
                    .collect::<Vec<_>>()
                    .join(":"),
            )
        })
    }
}

struct Output {
    success: bool,
    status: String,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

async fn talk(mut child: Child, config: &Value) -> io::Result<Output> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = config.to_string();
    let write = async {
        if let Some(mut stdin) = stdin {
            // One that answers without reading all is no error.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let read_out = async {
        match stdout {
            Some(pipe) => pipe.take(MAX_OUTPUT).read_to_end(&mut out).await,
            None => Ok(0),
        }
    };
    let read_err = async {
        match stderr {
            Some(pipe) => pipe.take(MAX_OUTPUT).read_to_end(&mut err).await,
            None => Ok(0),
        }
    };
    let ((), read_out, read_err) = tokio::join!(write, read_out, read_err);
    read_out.and(read_err)?;
    let status = child.wait().await?;
    Ok(Output {
        success: status.success(),
        status: status.to_string(),
        stdout: out,
        stderr: err,
    })
}

/// Section "Error" of the specification.
#[derive(Debug, Deserialize)]
struct Told {
    code: u32,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

impl Output {
    fn judge(self) -> Result<Value, PluginError> {
        if !self.success {
            return Err(match serde_json::from_slice(&self.stdout) {
                Ok(Told { code, msg, details }) => PluginError::Told { code, msg, details },
                Err(_) => PluginError::Failed {
                    status: self.status,
                    stderr: tail(&self.stderr),
                },
            });
        }
        if self.stdout.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.stdout).map_err(PluginError::Answer)
    }
}

/// The last of it in one line.
fn tail(stderr: &[u8]) -> String {
    let from = stderr.len().saturating_sub(TOLD);
    let text = String::from_utf8_lossy(&stderr[from..]);
    text.trim().replace('\n', "; ")
}

/// What a plugin that said this is taken to mean, for the tests with damaged input.
#[cfg(test)]
pub fn fuzzed_answer(success: bool, stdout: &[u8]) -> Result<Value, PluginError> {
    let (status, stderr) = ("exit status: 1".to_owned(), stdout.to_vec());
    let stdout = stdout.to_vec();
    let output = Output {
        success,
        status,
        stdout,
        stderr,
    };
    output.judge().inspect_err(|error| {
        let text = error.to_string();
        assert!(!text.is_empty(), "no reason");
    })
}

/// A list of folders as `CNI_PATH` has it.
pub fn search_path(dirs: &[PathBuf]) -> String {
    let dirs = dirs
        .iter()
        .map(|d: &PathBuf| Path::new(d).display().to_string());
    dirs.collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(success: bool, stdout: &str, stderr: &str) -> Output {
        Output {
            success,
            status: "exit status: 1".to_owned(),
            stdout: stdout.into(),
            stderr: stderr.into(),
        }
    }

    #[test]
    fn failure_is_told_in_the_plugins_words() {
        let told = output(
            false,
            r#"{"code":11,"msg":"try again","details":"busy"}"#,
            "",
        )
        .judge();
        assert_eq!(told.unwrap_err().to_string(), "try again (code 11): busy");
        let failed = output(false, "panic!", "first\nlast\n").judge();
        assert_eq!(
            failed.unwrap_err().to_string(),
            "exit status: 1: first; last"
        );
    }

    #[test]
    fn nothing_said_is_null() {
        assert_eq!(output(true, " \n", "noise").judge().unwrap(), Value::Null);
        assert!(output(true, "no json", "").judge().is_err());
    }
}
