//! The steps of the start that prepare the handler script: find it and its Python, then, once the port is open, download
//! it and install its packages.
//!
//! In multi-model mode this is the script for models that have none of their own; `models/load.rs` prepares those of
//! single models. Running the workers is left to `handlers`.

use std::path::{Path, PathBuf};

use crate::config::{Config, MultiModelConfig};
use crate::error::StartError;
use crate::handlers::interpreter::Interpreter;
use crate::handlers::launch::Launch;
use crate::handlers::{self, Script, packages};
use crate::models::backend::HandlerWorkers;
use crate::models::remarks;
use crate::supervisor::handle::SupervisorHandle;
use crate::tfs::files::Files;

/// Finds the handler script and its Python, which takes no time worth mentioning. Returns the script's workers, which
/// are not started yet; `None` without a script.
///
/// # Errors
/// When the script cannot be used, or the one that SAGEMAKER_PROGRAM names does not exist although there is a folder
/// `code`, or its Python does not work; [`StartError::Stopped`] when the supervisor stops.
pub fn find(
    config: &Config,
    default_model: &str,
    files: &Files,
    supervisor: &SupervisorHandle,
) -> Result<Option<HandlerWorkers>, StartError> {
    let Some(script) = script(config, files)? else {
        return Ok(None);
    };
    let interpreter = Interpreter::find(&script.path, supervisor)?;
    // Empty in multi-model mode, where each model has its own ports.
    let ports = &config.instance_ports;
    let directory = files.directory();
    let launch = Launch::new(config, script, interpreter, directory, ports, default_model);
    Ok(Some(HandlerWorkers::new(launch)))
}

/// Downloads the script if it comes from S3, and installs its packages. Both may take minutes, so the port is open by
/// then, and `/ping` tells what the workers wait for.
///
/// # Errors
/// When the download or the installation fails; [`StartError::Stopped`] when the supervisor stops.
pub fn complete(
    config: &Config,
    workers: &HandlerWorkers,
    files: &Files,
    supervisor: &SupervisorHandle,
) -> Result<(), StartError> {
    let launch = &workers.launch;
    if let Some((multi_model, source)) = universal_handler(config) {
        workers.announce("downloading the handler");
        let folder = files.directory().join(UNIVERSAL);
        download(config, multi_model, source, &folder, supervisor)?;
    }
    if let Some(requirements) =
        packages::requirements(&launch.code, "").map_err(StartError::failed)?
    {
        workers.announce("installing packages");
        packages::install(&requirements, &launch.interpreter, supervisor)?;
    }
    workers.announce("starting");
    Ok(())
}

/// The handler script; if it comes from S3, where a download will put it.
fn script(config: &Config, files: &Files) -> Result<Option<Script>, StartError> {
    let program = &config.handlers.program;
    if universal_handler(config).is_some() {
        let code = files.directory().join(UNIVERSAL).join(handlers::CODE);
        let path = code.join(handlers::below_code(program));
        return Ok(Some(Script { path, code }));
    }
    let model_dir = &config.model_dir;
    if config.multi_model.is_none() {
        let script = handlers::find(model_dir, program).map_err(StartError::failed)?;
        return match script {
            None => without_script(config).map(|()| None),
            script => Ok(script),
        };
    }
    // The shared script may also be next to the folder of the models.
    let folders = || model_dir.ancestors().take(2);
    let script = handlers::find_in(folders(), program).map_err(StartError::failed)?;
    if script.is_none() {
        // Models that are loaded later may have the script.
        let codes = folders().map(|folder| folder.join(handlers::CODE));
        let about = |code: PathBuf| remarks::about_code(&code, program);
        remarks::warn("", codes.filter_map(about).collect());
    }
    Ok(script)
}

/// Refuses a start without the script that SAGEMAKER_PROGRAM names, if the archive has a folder for it. The SageMaker SDK
/// sets the variable for some archives that have none.
fn without_script(config: &Config) -> Result<(), StartError> {
    let program = &config.handlers.program;
    let code = config.model_dir.join(handlers::CODE);
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

/// The folder in the program's directory for the handler from S3.
const UNIVERSAL: &str = "universal";

/// Bucket and prefix of the handler for all models, if it comes from S3.
fn universal_handler(config: &Config) -> Option<(&MultiModelConfig, (&str, &str))> {
    let multi_model = config.multi_model.as_ref()?;
    let (bucket, prefix) = multi_model.universal_handler.as_ref()?;
    Some((multi_model, (bucket, prefix)))
}

/// Fails, because this build cannot download.
#[cfg(not(feature = "s3"))]
fn download(
    _config: &Config,
    _multi_model: &MultiModelConfig,
    _source: (&str, &str),
    _folder: &Path,
    _supervisor: &SupervisorHandle,
) -> Result<(), StartError> {
    Err(StartError::failed(
        "SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET is set, but this build of sagemaker-tfs cannot download from S3: like \
         images of the flavor slim, it was built without the feature s3; use an image of the flavor python, or build \
         with --features s3",
    ))
}

/// Downloads the handler for all models below `folder`, so that its script is in the folder `code` there.
#[cfg(feature = "s3")]
fn download(
    config: &Config,
    multi_model: &MultiModelConfig,
    (bucket, prefix): (&str, &str),
    folder: &Path,
    supervisor: &SupervisorHandle,
) -> Result<(), StartError> {
    log::info!("downloading the handler for all models from s3://{bucket}/{prefix}");
    let files = folder.join("files/code");
    let (aws, name, keys) = (
        multi_model.aws.clone(),
        bucket.to_owned(),
        prefix.to_owned(),
    );
    let target = files.clone();
    // A download may take minutes to fail, and must not delay the end of the program.
    let downloaded = supervisor.run_in_thread("download", move || {
        crate::s3::download(&aws, &name, &keys, &target)
    })?;
    let count = downloaded.map_err(StartError::failed)?;
    log::info!("files downloaded: {count}");
    // The prefix may name the folder `code` itself or the folder that contains it.
    let program = handlers::below_code(&config.handlers.program);
    let mut places = [files.clone(), files.join(handlers::CODE)].into_iter();
    let Some(code) = places.find(|place| place.join(program).is_file()) else {
        return Err(StartError::failed(format!(
            "s3://{bucket}/{prefix} has no {}, neither directly below the prefix nor in a folder code below it \
             (files downloaded: {count})",
            program.display()
        )));
    };
    let link = folder.join(handlers::CODE);
    std::os::unix::fs::symlink(code, &link)
        .map_err(|e| StartError::failed(format!("cannot write {}: {e}", link.display())))
}
