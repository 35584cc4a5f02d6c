//! The steps of the start that prepare a handler script: finding or downloading it, its Python, its packages.
//!
//! In multi-model mode this is the script for models without their own.

use std::path::{Path, PathBuf};

use crate::config::{Config, MultiModelConfig};
use crate::error::StartError;
use crate::handlers::interpreter::Interpreter;
use crate::handlers::launch::Launch;
use crate::handlers::{self, packages};
use crate::models::backend::HandlerWorkers;
use crate::supervisor::handle::SupervisorHandle;
use crate::tfs::files::Files;

/// The workers for the handler script, if there is one; its packages are installed. They have yet to be started.
///
/// # Errors
/// When a script that is asked for is not there, its Python or packages do not work, or a download fails;
/// [`StartError::Stopped`] when the supervisor stops.
pub fn prepare(
    config: &Config,
    default_model: &str,
    files: &Files,
    supervisor: &SupervisorHandle,
) -> Result<Option<HandlerWorkers>, StartError> {
    let folders = folders(config, files, supervisor)?;
    let program = &config.handlers.program;
    let Some(script) = handlers::find_in(folders.iter().map(PathBuf::as_path), program) else {
        // In multi-model mode models may have it.
        if config.handlers.program_is_named && config.multi_model.is_none() {
            return Err(StartError::failed(format!(
                "SAGEMAKER_PROGRAM is {program:?}, but {} is not there",
                config.model_dir.join("code").join(program).display()
            )));
        }
        return Ok(None);
    };
    let interpreter = Interpreter::find(&script, supervisor)?;
    packages::install(&script, &interpreter, supervisor)?;
    // Empty in multi-model mode, where each model has ports of its own.
    let ports = &config.instance_ports;
    let directory = files.directory();
    let launch = Launch::new(config, script, interpreter, directory, ports, default_model);
    Ok(Some(HandlerWorkers::new(launch)))
}

/// The folders that may have the script in their folder `code`.
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

/// Refuses to start: this build cannot download.
#[cfg(not(feature = "s3"))]
fn download(
    _config: &Config,
    _multi_model: &MultiModelConfig,
    _source: (&str, &str),
    _folder: PathBuf,
    _supervisor: &SupervisorHandle,
) -> Result<Vec<PathBuf>, StartError> {
    Err(StartError::failed(
        "SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET is set, but this build of sagemaker-tfs cannot download from S3: it was \
         built without the feature s3, as for images of the flavor slim; use the flavor python, or build with --features \
         s3",
    ))
}

/// Downloads the handler for all models into `folder`. Returns the folders that may have the script in their folder `code`.
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
    // A download may take minutes to fail, and the end of the program must not wait for it.
    let downloaded = supervisor.run_in_thread("download", move || {
        crate::s3::download(&aws, &name, &keys, &target)
    })?;
    let count = downloaded.map_err(StartError::failed)?;
    log::info!("downloaded {count} files");
    // With or without a folder `code` below the prefix.
    let folders = vec![folder, code];
    let program = &config.handlers.program;
    match handlers::find_in(folders.iter().map(PathBuf::as_path), program) {
        Some(_) => Ok(folders),
        None => Err(StartError::failed(format!(
            "s3://{bucket}/{prefix} has no {program}, neither there nor in a folder code below ({count} files were \
             downloaded)"
        ))),
    }
}
