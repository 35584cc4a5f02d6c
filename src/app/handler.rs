//! The steps of the start that prepare the handler script: find or download it, find its Python, install its packages.
//!
//! In multi-model mode this is the script for models that have none of their own; `models/load.rs` prepares those of
//! single models. Running the workers is left to `handlers`.

use std::path::{Path, PathBuf};

use crate::config::{Config, MultiModelConfig};
use crate::error::StartError;
use crate::handlers::interpreter::Interpreter;
use crate::handlers::launch::Launch;
use crate::handlers::{self, packages};
use crate::models::backend::HandlerWorkers;
use crate::models::remarks;
use crate::supervisor::handle::SupervisorHandle;
use crate::tfs::files::Files;

/// Finds the handler script and installs its packages. Returns its workers, which are not started yet; `None` without a
/// script.
///
/// # Errors
/// When the script that SAGEMAKER_PROGRAM names does not exist although there is a folder `code`, its Python does not
/// work, or installing or downloading fails; [`StartError::Stopped`] when the supervisor stops.
pub fn prepare(
    config: &Config,
    default_model: &str,
    files: &Files,
    supervisor: &SupervisorHandle,
) -> Result<Option<HandlerWorkers>, StartError> {
    let folders = folders(config, files, supervisor)?;
    let program = &config.handlers.program;
    let Some(script) = handlers::find_in(folders.iter().map(PathBuf::as_path), program) else {
        if config.multi_model.is_none() {
            return without_script(config).map(|()| None);
        }
        // Models that are loaded later may have the script.
        for folder in &folders {
            remarks::warn(Vec::from_iter(remarks::about_code(
                &folder.join("code"),
                program,
            )));
        }
        return Ok(None);
    };
    let interpreter = Interpreter::find(&script.path, supervisor)?;
    packages::install(&script.code, &interpreter, supervisor)?;
    // Empty in multi-model mode, where each model has its own ports.
    let ports = &config.instance_ports;
    let directory = files.directory();
    let launch = Launch::new(config, script, interpreter, directory, ports, default_model);
    Ok(Some(HandlerWorkers::new(launch)))
}

/// Refuses a start without the script that SAGEMAKER_PROGRAM names, if the archive has a folder for it. The SageMaker
/// SDK sets the variable for some archives that have none.
fn without_script(config: &Config) -> Result<(), StartError> {
    let program = &config.handlers.program;
    let code = config.model_dir.join("code");
    if !config.handlers.program_is_named {
        return Ok(());
    }
    if code.is_dir() {
        return Err(StartError::failed(format!(
            "SAGEMAKER_PROGRAM is {program:?}, but {} does not exist",
            code.join(program).display()
        )));
    }
    log::warn!(
        "SAGEMAKER_PROGRAM is {program:?}, but there is no folder {}: requests are served without a handler",
        code.display()
    );
    Ok(())
}

/// The folders whose subfolder `code` may hold the script.
fn folders(
    config: &Config,
    files: &Files,
    supervisor: &SupervisorHandle,
) -> Result<Vec<PathBuf>, StartError> {
    let Some(multi_model) = &config.multi_model else {
        return Ok(vec![config.model_dir.clone()]);
    };
    match &multi_model.universal_handler {
        Some((bucket, prefix)) => {
            let folder = files.directory().join("universal");
            download(config, multi_model, (bucket, prefix), folder, supervisor)
        }
        None => {
            let above = config.model_dir.ancestors().take(2);
            Ok(above.map(Path::to_owned).collect())
        }
    }
}

/// Fails, because this build cannot download.
#[cfg(not(feature = "s3"))]
fn download(
    _config: &Config,
    _multi_model: &MultiModelConfig,
    _source: (&str, &str),
    _folder: PathBuf,
    _supervisor: &SupervisorHandle,
) -> Result<Vec<PathBuf>, StartError> {
    Err(StartError::failed(
        "SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET is set, but this build of sagemaker-tfs cannot download from S3: like \
         images of the flavor slim, it was built without the feature s3; use an image of the flavor python, or build \
         with --features s3",
    ))
}

/// Downloads the handler for all models into `folder`. Returns the folders whose subfolder `code` may hold the script.
#[cfg(feature = "s3")]
fn download(
    config: &Config,
    multi_model: &MultiModelConfig,
    (bucket, prefix): (&str, &str),
    folder: PathBuf,
    supervisor: &SupervisorHandle,
) -> Result<Vec<PathBuf>, StartError> {
    log::info!("downloading the handler for all models from s3://{bucket}/{prefix}");
    let code = folder.join("code");
    let (aws, name, keys) = (
        multi_model.aws.clone(),
        bucket.to_owned(),
        prefix.to_owned(),
    );
    let target = code.clone();
    // A download may take minutes to fail, and must not delay the end of the program.
    let downloaded = supervisor.run_in_thread("download", move || {
        crate::s3::download(&aws, &name, &keys, &target)
    })?;
    let count = downloaded.map_err(StartError::failed)?;
    log::info!("files downloaded: {count}");
    // The prefix may name the folder `code` itself or the folder that contains it.
    let folders = vec![folder, code];
    let program = &config.handlers.program;
    match handlers::find_in(folders.iter().map(PathBuf::as_path), program) {
        Some(_) => Ok(folders),
        None => Err(StartError::failed(format!(
            "s3://{bucket}/{prefix} has no {program}, neither directly below the prefix nor in a folder code below it \
             (files downloaded: {count})"
        ))),
    }
}
