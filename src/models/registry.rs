//! The models of multi-model mode: loaded, listed, used and unloaded while the server runs.
//!
//! Each model has processes of its own. One mutex guards the table of models, and is held only to look or to note;
//! loading and unloading happen outside it, so that no model waits for another.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::attributes::is_model_name;
use crate::config::{Config, InstancePorts};
use crate::error::RequestError;
use crate::handlers::interpreter::Interpreter;
use crate::handlers::worker::Launch;
use crate::handlers::{self, packages};
use crate::http::budget::Buffer;
use crate::memory;
use crate::models::backend::{self, Served, Workers};
use crate::models::ports::PortPool;
use crate::models::{Model, discover};
use crate::supervisor::handle::{StartFailure, Supervisor, UnitId};
use crate::tfs::client::{Method, TfsRequest};
use crate::tfs::files::Files;

/// Requests of a model that is unloaded are given this long to finish.
const UNLOAD_LIMIT: Duration = Duration::from_secs(30);
/// Models a page when the request does not say.
const DEFAULT_PAGE: usize = 100;
/// Folders that hold no models, whatever they seem to hold.
const SYSTEM_FOLDERS: [&str; 3] = ["/dev", "/proc", "/sys"];

/// All models.
pub struct Registry {
    config: Config,
    supervisor: Supervisor,
    ports: PortPool,
    gpus: u32,
    /// For models without a script of their own.
    universal: Option<Workers>,
    interpreter: OnceLock<Interpreter>,
    models: Mutex<BTreeMap<String, Entry>>,
    /// A request of some model has ended.
    finished: Condvar,
    /// Requests that use or wait for some model.
    in_use: AtomicUsize,
}

/// A model from the moment it is asked for until nothing of it is left.
struct Entry {
    url: String,
    state: State,
}

/// Loading → Ready → Unloading → gone; a load that fails is gone at once.
enum State {
    Loading,
    Ready(Arc<Loaded>),
    Unloading,
}

/// Everything a loaded model has.
struct Loaded {
    served: Served,
    ports: Vec<InstancePorts>,
    units: Vec<UnitId>,
    /// A token for each request that it may work on at once.
    turns: (Sender<()>, Receiver<()>),
    /// Its config files and packages; removed with it.
    _files: Files,
}

/// A model in use. It is not unloaded while this is held, up to a limit.
pub struct InUse<'a> {
    registry: &'a Registry,
    loaded: Option<Arc<Loaded>>,
    has_turn: bool,
}

impl InUse<'_> {
    /// Waits until the model works on fewer requests than it may.
    ///
    /// # Errors
    /// 503 when so many wait for this model that others would suffer, 504 at the deadline.
    pub fn wait_for_turn(&mut self, deadline: Instant) -> Result<(), RequestError> {
        let (registry, loaded) = (
            self.registry,
            self.loaded.as_ref().expect("there until dropped"),
        );
        let turn = &loaded.turns.1;
        let is_free = turn.try_recv().is_ok();
        if !is_free {
            let all = registry.config.slots();
            // A quarter is left for models that have fewer.
            if registry.in_use.load(Ordering::Relaxed) > all - all / 4 {
                return Err(RequestError::busy(
                    "Too many requests are waiting for this model; try again.",
                ));
            }
            let late = "too many other requests of this model came first";
            turn.recv_deadline(deadline)
                .map_err(|_| RequestError::deadline(registry.config.deadline, late))?;
        }
        self.has_turn = true;
        Ok(())
    }

    /// What serves it.
    pub fn served(&self) -> &Served {
        let loaded = self.loaded.as_ref().expect("there until dropped");
        &loaded.served
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.registry.in_use.fetch_sub(1, Ordering::Relaxed);
        if self.has_turn
            && let Some(loaded) = &self.loaded
        {
            // There is room for what was taken.
            let _ = loaded.turns.0.try_send(());
        }
        // Under the lock, so that who waits for this sees it.
        let models = self.registry.lock();
        let last = self.loaded.take().and_then(Arc::into_inner);
        self.registry.finished.notify_all();
        drop(models);
        // Removes files, which takes a while: nobody is to wait for that.
        drop(last);
    }
}

/// What a load has taken so far. Dropped, it gives everything back, unless it is kept.
struct Claim<'a> {
    registry: &'a Registry,
    name: &'a str,
    ports: Vec<InstancePorts>,
    units: Vec<UnitId>,
    /// Removed once nothing runs any more that could write there.
    files: Option<Files>,
    /// All this is the model's from now on.
    is_kept: bool,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let Self {
            registry,
            name,
            ports,
            units,
            ..
        } = self;
        registry.supervisor.release(std::mem::take(units));
        registry.ports.give_back(ports);
        registry.lock().remove(*name);
    }
}

impl Registry {
    /// No models yet. `gpus` is the number of them, `universal` what runs the handler of models without their own.
    pub fn new(
        config: &Config,
        ports: PortPool,
        supervisor: Supervisor,
        gpus: u32,
        universal: Option<Workers>,
    ) -> Self {
        Self {
            config: config.clone(),
            supervisor,
            ports,
            gpus,
            universal,
            interpreter: OnceLock::new(),
            models: Mutex::new(BTreeMap::new()),
            finished: Condvar::new(),
            in_use: AtomicUsize::new(0),
        }
    }

    /// Loads a model as the body of `POST /models` says. Returns when it can be used.
    ///
    /// # Errors
    /// 400 for a wrong body, name or url, 404 for a url without a model, 409 when it is there, 408 when it takes too
    /// long, 507 when something runs out, 500 when it does not start.
    pub fn load(&self, body: &[u8]) -> Result<String, RequestError> {
        let until = Instant::now() + self.config.wait_time;
        let (name, url) = parse_load(body)?;
        {
            let mut models = self.lock();
            if models.contains_key(&name) {
                let text = format!("Model {name} is already loaded.");
                return Err(RequestError::new(409, text));
            }
            let state = State::Loading;
            let url = url.clone();
            models.insert(name.clone(), Entry { url, state });
        }
        let mut claim = Claim {
            registry: self,
            name: &name,
            ports: Vec::new(),
            units: Vec::new(),
            files: None,
            is_kept: false,
        };
        let begin = Instant::now();
        let loaded = self.start(&mut claim, &url, until).inspect_err(|error| {
            log::error!("model {name} cannot be loaded: {}", error.text);
        })?;
        let pair = loaded.ports[0];
        let text = format!(
            "Successfully loaded model {name}, listening on rest port {}, grpc port {}.",
            pair.rest, pair.grpc
        );
        claim.is_kept = true;
        if let Some(entry) = self.lock().get_mut(&name) {
            entry.state = State::Ready(Arc::new(loaded));
        }
        log::info!(
            "model {name}: loaded in {:.2} s",
            begin.elapsed().as_secs_f64()
        );
        Ok(text)
    }

    fn start(&self, claim: &mut Claim, url: &str, until: Instant) -> Result<Loaded, RequestError> {
        let name = claim.name;
        let model = find_model(name, url)?;
        let instances = self.config.multi_model.as_ref().map_or(1, |m| m.instances);
        claim.ports = self.ports.take(instances as usize).ok_or_else(|| {
            RequestError::new(
                507,
                "Memory exhausted: no available ports to load the model.",
            )
        })?;
        let files = Files::write(&self.config, std::slice::from_ref(&model))
            .map_err(|e| RequestError::new(507, e.to_string()))?;
        let directory = files.directory().to_owned();
        let files = claim.files.insert(files);
        let backend = backend::backend(&self.config, &claim.ports);

        let (starter, started) = unbounded();
        claim.units = backend::start_instances(
            &self.config,
            files,
            &backend,
            std::slice::from_ref(&model),
            self.gpus,
            &self.supervisor,
            Some(&starter),
        )
        .map_err(|failure| load_error(name, &failure))?;
        // Packages are installed while the model server loads, but scripts may use it while they are loaded.
        let workers = self.own_workers(claim, &model, Path::new(url), &directory, until)?;
        for _ in 0..claim.ports.len() {
            self.wait_for_start(&started, name, until)?;
        }
        if let Some(workers) = &workers {
            let units = workers.start(&self.supervisor, Some(&starter));
            claim.units.extend(&units);
            for _ in units {
                self.wait_for_start(&started, name, until)?;
            }
        }
        let workers = workers.as_ref().or(self.universal.as_ref());
        let turns = bounded(self.config.model_slots());
        while turns.0.try_send(()).is_ok() {}
        Ok(Loaded {
            served: Served {
                handlers: workers.map(|workers| workers.handlers(&backend, &self.config)),
                backend,
                default_model: name.to_owned(),
            },
            ports: claim.ports.clone(),
            units: claim.units.clone(),
            turns,
            _files: claim.files.take().expect("they were just written"),
        })
    }

    /// Workers for the model's own script, if it has one, with the packages it asks for.
    fn own_workers(
        &self,
        claim: &mut Claim,
        model: &Model,
        url: &Path,
        directory: &Path,
        until: Instant,
    ) -> Result<Option<Workers>, RequestError> {
        // Beside the versions, or above them up to the model's folder.
        let folders = model.path.ancestors();
        let folders = folders.take_while(|folder| folder.starts_with(url));
        let Some(script) = handlers::find_in(folders, &self.config.handlers.program) else {
            return Ok(None);
        };
        let interpreter = self.interpreter(claim, until)?;
        let mut launch = Launch::new(
            &self.config,
            script,
            interpreter.clone(),
            directory,
            &claim.ports,
            claim.name,
        );
        launch.model = Some(claim.name.to_owned());
        if let Some(requirements) = packages::requirements(&launch.script) {
            let target = directory.join("packages");
            let mut command = packages::pip(&interpreter, &requirements);
            command.arg("--target").arg(&target);
            // What it leaves behind when it is killed goes with the model's files.
            command.env("TMPDIR", directory);
            let streams = packages::streams(&format!("{}: ", claim.name));
            let end = self.run(claim, command, streams, until)?;
            end.map_err(|failure| RequestError {
                text: format!(
                    "The packages in {} cannot be installed: pip: {}",
                    requirements.display(),
                    failure.text
                ),
                ..load_error(claim.name, &failure)
            })?;
            launch.packages = Some(target);
        }
        Ok(Some(Workers::new(launch)))
    }

    /// The Python of all models, found when the first needs it.
    fn interpreter(&self, claim: &mut Claim, until: Instant) -> Result<Interpreter, RequestError> {
        if let Some(interpreter) = self.interpreter.get() {
            return Ok(interpreter.clone());
        }
        let streams = packages::streams("python3: ");
        let answer = self.run(claim, Interpreter::question(), streams, until)?;
        let missing = |why: &str| {
            let text = format!("The model's handler needs python3, which does not work: {why}");
            RequestError::new(500, text)
        };
        let answer = answer.map_err(|failure| missing(&failure.text))?;
        let interpreter = Interpreter::parse(&answer).ok_or_else(|| missing(&answer))?;
        Ok(self.interpreter.get_or_init(|| interpreter).clone())
    }

    /// Runs a program once, as part of a load.
    fn run(
        &self,
        claim: &mut Claim,
        command: std::process::Command,
        streams: crate::supervisor::child::Streams,
        until: Instant,
    ) -> Result<Result<String, StartFailure>, RequestError> {
        let id = self.supervisor.new_id();
        let end = self.supervisor.run(id, command, streams);
        claim.units.push(id);
        self.wait(&end, claim.name, until)
    }

    /// Waits for a part of a load.
    fn wait<T>(&self, news: &Receiver<T>, name: &str, until: Instant) -> Result<T, RequestError> {
        news.recv_deadline(until).map_err(|e| match e {
            RecvTimeoutError::Timeout => self.too_late(name),
            RecvTimeoutError::Disconnected => RequestError::new(503, "The server is stopping."),
        })
    }

    /// Waits for one of the load's processes to come up.
    fn wait_for_start(
        &self,
        started: &Receiver<Result<(), StartFailure>>,
        name: &str,
        until: Instant,
    ) -> Result<(), RequestError> {
        match self.wait(started, name, until)? {
            // The watchdog's own time for a start ends just after this, and on a busy machine we may hear of it first.
            Err(_) if Instant::now() >= until => Err(self.too_late(name)),
            end => end.map_err(|failure| load_error(name, &failure)),
        }
    }

    fn too_late(&self, name: &str) -> RequestError {
        if memory::is_short() {
            let text = format!("Memory exhausted: model {name} could not be loaded in time.");
            return RequestError::new(507, text);
        }
        let text = format!(
            "Model {name} could not be loaded within {} s (SAGEMAKER_TFS_WAIT_TIME_SECONDS).",
            self.config.wait_time.as_secs()
        );
        RequestError::new(408, text)
    }

    /// Unloads a model: lets its requests finish, ends its processes, frees its ports.
    ///
    /// # Errors
    /// 404 when it is not loaded.
    pub fn unload(&self, name: &str) -> Result<String, RequestError> {
        let mut models = self.lock();
        let entry = models.get_mut(name);
        let Some(entry) = entry.filter(|entry| matches!(entry.state, State::Ready(_))) else {
            return Err(not_loaded(name));
        };
        let State::Ready(loaded) = std::mem::replace(&mut entry.state, State::Unloading) else {
            unreachable!("it was just seen");
        };
        let until = Instant::now() + UNLOAD_LIMIT.min(self.config.deadline);
        while Arc::strong_count(&loaded) > 1 && Instant::now() < until {
            let timeout = until.saturating_duration_since(Instant::now());
            models = self
                .finished
                .wait_timeout(models, timeout)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        drop(models);
        if Arc::strong_count(&loaded) > 1 {
            log::warn!("model {name} is unloaded while requests are running");
        }
        loaded.served.backend.pool.close();
        drop(Claim {
            registry: self,
            name,
            ports: loaded.ports.clone(),
            units: loaded.units.clone(),
            files: None,
            is_kept: false,
        });
        log::info!("model {name}: unloaded");
        Ok(format!("Successfully unloaded model {name}."))
    }

    /// The model of this name, for a request.
    ///
    /// # Errors
    /// 404 when it is not loaded.
    pub fn get(&self, name: &str) -> Result<InUse<'_>, RequestError> {
        match self.lock().get(name).map(|entry| &entry.state) {
            Some(State::Ready(loaded)) => {
                self.in_use.fetch_add(1, Ordering::Relaxed);
                Ok(InUse {
                    registry: self,
                    loaded: Some(Arc::clone(loaded)),
                    has_turn: false,
                })
            }
            _ => Err(not_loaded(name)),
        }
    }

    /// Whether models can be loaded and used: the handler for all models, if there is one, must be ready.
    ///
    /// # Errors
    /// When not: what is missing, and for how long.
    pub fn check(&self) -> Result<(), String> {
        let universal = self.universal.as_ref();
        universal.map_or(Ok(()), |workers| workers.pool.check())
    }

    /// A page of the models that are loaded, by name: up to `limit` after `token`, which is the last name of the page
    /// before.
    ///
    /// # Errors
    /// 400 for a wrong limit.
    pub fn list(&self, query: &str) -> Result<Value, RequestError> {
        let (mut token, mut limit) = (String::new(), DEFAULT_PAGE);
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("next_page_token", value)) => token = value.to_owned(),
                Some(("limit", value)) if !value.is_empty() => {
                    let number = value.parse().ok().filter(|&n| n > 0);
                    limit = number.ok_or_else(|| {
                        let text = format!("limit is {value:?}; accepted: a whole number from 1");
                        RequestError::bad_request(text)
                    })?;
                }
                _ => {}
            }
        }
        let models = self.lock();
        let ready = |(name, entry): &(&String, &Entry)| {
            **name > token && matches!(entry.state, State::Ready(_))
        };
        let mut rest = models.iter().filter(ready);
        let page: Vec<_> = rest.by_ref().take(limit).collect();
        let describe =
            |(name, entry): &(&String, &Entry)| json!({"modelName": name, "modelUrl": entry.url});
        let mut answer = json!({"models": page.iter().map(describe).collect::<Vec<_>>()});
        if let (Some((last, _)), Some(_)) = (page.last(), rest.next()) {
            answer["nextPageToken"] = json!(last);
        }
        Ok(answer)
    }

    /// A loaded model and what TensorFlow Serving says of it.
    ///
    /// # Errors
    /// 404 when it is not loaded, and what TensorFlow Serving's client says.
    pub fn describe(&self, name: &str, deadline: Instant) -> Result<Value, RequestError> {
        let model = self.get(name)?;
        let url = self.lock().get(name).map(|entry| entry.url.clone());
        let question = TfsRequest {
            method: Method::Get,
            path: &format!("/v1/models/{name}"),
            content_type: None,
            body: b"",
        };
        let answer = model
            .served()
            .backend
            .call(&question, &Buffer::default(), deadline)?;
        let mut description = json!({"modelName": name, "modelUrl": url});
        if let Ok(Value::Object(status)) = serde_json::from_slice(&answer.body) {
            for (key, value) in status {
                description[key] = value;
            }
        }
        Ok(description)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_loaded(name: &str) -> RequestError {
    RequestError::new(404, format!("Model {name} is not loaded yet."))
}

/// 507 when something ran out, which makes SageMaker unload other models; else 500.
fn load_error(name: &str, failure: &StartFailure) -> RequestError {
    match failure.out_of_resources {
        true => RequestError::new(507, format!("Memory exhausted: {}", failure.text)),
        false => RequestError::new(500, format!("Model {name}: {}", failure.text)),
    }
}

/// The body of `POST /models`.
#[derive(Deserialize)]
struct Load {
    model_name: String,
    url: String,
}

/// Name and url from the body of `POST /models`.
fn parse_load(body: &[u8]) -> Result<(String, String), RequestError> {
    let wrong = |text: String| Err(RequestError::bad_request(text));
    // Nothing but these two is kept, however much there is.
    let Load { model_name, url } = match serde_json::from_slice(body) {
        Ok(load) => load,
        Err(e) => {
            return wrong(format!(
                "The body is not a JSON object with model_name and url, both as strings: {e}"
            ));
        }
    };
    let (name, url) = (&*model_name, &*url);
    if !is_model_name(name) {
        return wrong(format!(
            "model_name is {name:?}; accepted: letters, digits, '.', '_' and '-', starting with a letter or digit, at \
             most 255"
        ));
    }
    let path = Path::new(url);
    // It goes into messages, which are lines of the log.
    if !path.is_absolute()
        || path.components().any(|c| c == Component::ParentDir)
        || url.contains(char::is_control)
    {
        return wrong(format!(
            "url is {url:?}; accepted: an absolute path without \"..\" and control characters"
        ));
    }
    Ok((name.to_owned(), url.to_owned()))
}

/// The model below `url`, under the name it is loaded by.
fn find_model(name: &str, url: &str) -> Result<Model, RequestError> {
    let none = || {
        let text = format!("Could not find valid base path {url} for servable {name}");
        RequestError::new(404, text)
    };
    let holds_none = || {
        let text = format!("url is {url:?}, which holds no models.");
        RequestError::bad_request(text)
    };
    let real = PathBuf::from(url).canonicalize().map_err(|_| none())?;
    if is_of_the_system(&real) {
        return Err(holds_none());
    }
    let models = discover(Path::new(url)).map_err(|e| {
        log::warn!("model {name}: {e}");
        none()
    })?;
    match models.as_slice() {
        // Links within the archive may lead anywhere.
        [model] if leads_to_the_system(&model.path) => Err(holds_none()),
        [model] => Ok(Model {
            name: name.to_owned(),
            ..model.clone()
        }),
        several => Err(RequestError::bad_request(format!(
            "url is {url:?}, which holds {} models; a model is loaded by itself.",
            several.len()
        ))),
    }
}

/// Below such a folder, or above one.
fn is_of_the_system(real: &Path) -> bool {
    let mut folders = SYSTEM_FOLDERS.iter().map(Path::new);
    folders.any(|folder| real.starts_with(folder) || folder.starts_with(real))
}

/// Whether a model's folder, or something in it such as a version, is a link to a folder of the system.
fn leads_to_the_system(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut paths = std::iter::once(folder.to_owned()).chain(paths);
    paths.any(|path| {
        path.canonicalize()
            .is_ok_and(|real| is_of_the_system(&real))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_needs_name_and_url() {
        let good = br#"{"model_name": "m.1", "url": "/opt/ml/models/m.1/model"}"#;
        assert_eq!(
            parse_load(good).unwrap(),
            ("m.1".into(), "/opt/ml/models/m.1/model".into())
        );
        for body in [
            "",
            "[]",
            "{}",
            r#"{"model_name": "m"}"#,
            r#"{"model_name": 1, "url": "/m"}"#,
            r#"{"model_name": "../m", "url": "/m"}"#,
            r#"{"model_name": "", "url": "/m"}"#,
            r#"{"model_name": "m", "url": "m"}"#,
            r#"{"model_name": "m", "url": "/opt/../etc"}"#,
            r#"{"model_name": "m", "url": "/opt/ml\nmodels"}"#,
            r#"{"model_name": "m\n", "url": "/m"}"#,
        ] {
            assert_eq!(
                parse_load(body.as_bytes()).unwrap_err().status,
                400,
                "{body}"
            );
        }
    }

    #[test]
    fn a_url_must_lead_to_one_model() {
        let temp = tempfile::tempdir().unwrap();
        let url = temp.path().to_str().unwrap();
        assert_eq!(find_model("n", url).unwrap_err().status, 404);
        let add = |folder: &str| {
            let folder = temp.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("saved_model.pb"), "").unwrap();
        };
        add("export/Servo/1");
        let model = find_model("n", url).unwrap();
        assert_eq!((model.name.as_str(), &model.versions), ("n", &vec![1]));
        add("other/1");
        assert_eq!(find_model("n", url).unwrap_err().status, 400);
        assert_eq!(find_model("n", "/proc/self").unwrap_err().status, 400);
        assert_eq!(find_model("n", "/no/such").unwrap_err().status, 404);
    }
}
