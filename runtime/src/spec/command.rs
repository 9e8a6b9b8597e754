//! What is run: arguments, environment, working directory.

use super::defaults::DEFAULT_PATH;
use super::user::ResolvedUser;
use super::{Input, SpecError};
use cri_proto::v1::ContainerConfig;
use oci_spec::image::ImageConfiguration;
use std::path::PathBuf;

/// `command` takes the place of ENTRYPOINT and, alone, also of CMD; `args`
/// takes the place of CMD.
pub(super) fn args(
    config: &ContainerConfig,
    image: &ImageConfiguration,
) -> Result<Vec<String>, SpecError> {
    let image = image.config().as_ref();
    let entrypoint = image.and_then(|c| c.entrypoint().clone());
    let cmd = image.and_then(|c| c.cmd().clone());
    let mut args = config.command.clone();
    if args.is_empty() {
        args = entrypoint.unwrap_or_default();
        if config.args.is_empty() {
            args.extend(cmd.unwrap_or_default());
        }
    }
    args.extend(config.args.iter().cloned());
    match args.first() {
        Some(first) if !first.is_empty() => Ok(args),
        _ => Err(SpecError::NoCommand),
    }
}

pub(super) fn cwd(
    config: &ContainerConfig,
    image: &ImageConfiguration,
) -> Result<PathBuf, SpecError> {
    let image = image.config().as_ref();
    let image = image.and_then(|c| c.working_dir().clone());
    let given = Some(config.working_dir.clone()).filter(|dir| !dir.is_empty());
    let cwd = given
        .or(image.filter(|dir| !dir.is_empty()))
        .unwrap_or_else(|| "/".to_owned());
    if !cwd.starts_with('/') || cwd.contains(char::is_control) {
        return Err(SpecError::WorkingDir { cwd });
    }
    Ok(cwd.into())
}

/// Later ones win: defaults, image, request. A name keeps the place where it
/// stood first.
pub(super) fn env(input: &Input<'_>, user: &ResolvedUser) -> Result<Vec<String>, SpecError> {
    let mut env = vec![DEFAULT_PATH.to_owned()];
    if input.config.tty {
        set(&mut env, "TERM", "xterm");
    }
    let hostname = &input.sandbox.hostname;
    if !hostname.is_empty() && !hostname.contains(char::is_control) {
        set(&mut env, "HOSTNAME", hostname);
    }
    let image = input.image.config().as_ref();
    for variable in image.and_then(|c| c.env().as_ref()).into_iter().flatten() {
        if let Some((name, value)) = variable.split_once('=') {
            set(&mut env, name, value);
        }
    }
    for variable in &input.config.envs {
        let value = String::from_utf8_lossy(&variable.value);
        let bad = variable.key.is_empty() || variable.key.contains(['=', '\0']);
        if bad || value.contains('\0') {
            return Err(SpecError::Env {
                name: variable.key.clone(),
            });
        }
        set(&mut env, &variable.key, &value);
    }
    if !env.iter().any(|v| v.starts_with("HOME=")) {
        set(&mut env, "HOME", &user.home);
    }
    Ok(env)
}

fn set(env: &mut Vec<String>, name: &str, value: &str) {
    let line = format!("{name}={value}");
    let same = |v: &&mut String| v.split('=').next() == Some(name);
    match env.iter_mut().find(same) {
        Some(old) => *old = line,
        None => env.push(line),
    }
}
