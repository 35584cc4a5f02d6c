//! Reads the signatures of an instance's models into the table of its backend, once for each process.
//!
//! Requests are converted by them, so the instance counts as ready only when they are read. A model server that does
//! not answer holds that up for a few tries, and no longer: without signatures, bodies are converted as well as they
//! can be.

use std::time::{Duration, Instant};

use crate::convert::signature::Signatures;
use crate::tfs::backend::Backend;
use crate::tfs::query::{Silence, ask};
use crate::tfs::status::Versions;

/// How often a process is asked before it counts as ready without signatures.
const MAX_TRIES: u32 = 3;
/// When a process is asked again after that. Each try may block the probe.
const RETRY: Duration = Duration::from_secs(10);
/// The time limit of a request, as long as the process answers.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The time limit once a request of the same try was not answered.
const SHORT_TIMEOUT: Duration = Duration::from_millis(200);
/// Processes that ended when they were asked before no more are asked: the question may be what ends them.
const MAX_DEATHS: u32 = 2;

/// What is still to be read from the current process.
#[derive(Debug)]
pub struct SignatureReader {
    /// Every version of every model.
    all: Vec<(String, u64)>,
    process: u64,
    /// The versions whose signatures have not been read.
    pending: Vec<(String, u64)>,
    tries: u32,
    last_try: Option<Instant>,
    /// Whether the connection was lost at the last try.
    was_lost: bool,
    deaths: u32,
}

/// What an instance said about a version.
enum Answer {
    /// Its signatures, or that it lists none.
    Listed(Option<Signatures>),
    /// Nothing, for this reason.
    None(String),
    /// Nothing, because the connection was lost or refused.
    Lost(String),
}

impl SignatureReader {
    /// A reader for these models, which has asked no process yet.
    pub fn new(models: &[Versions]) -> Self {
        let versions = models.iter().flat_map(|model| {
            let numbers = model.numbers.iter();
            numbers.map(|&number| (model.name.clone(), number))
        });
        Self {
            all: versions.collect(),
            process: 0,
            pending: Vec::new(),
            tries: 0,
            last_try: None,
            was_lost: false,
            deaths: 0,
        }
    }

    /// Asks the instance on this port for what is still to be read, unless it was asked a short while ago.
    ///
    /// # Errors
    /// Why the instance should not count as ready yet.
    pub fn read(&mut self, process: u64, backend: &Backend, port: u16) -> Result<(), String> {
        if process != self.process {
            self.begin(process);
        }
        let is_early =
            self.tries >= MAX_TRIES && self.last_try.is_some_and(|at| at.elapsed() < RETRY);
        if self.pending.is_empty() || is_early {
            return Ok(());
        }
        let Some(why) = self.try_all(backend, port) else {
            return Ok(());
        };
        self.tries += 1;
        self.last_try = Some(Instant::now());
        if self.tries < MAX_TRIES {
            return Err(format!("the signatures of its models are not known: {why}"));
        }
        if self.tries == MAX_TRIES {
            log::warn!(
                "the signatures of {} cannot be read, so bodies for it are converted without them: {why}",
                self.describe_pending()
            );
        }
        Ok(())
    }

    fn begin(&mut self, process: u64) {
        self.deaths += u32::from(self.was_lost);
        (self.process, self.tries, self.last_try, self.was_lost) = (process, 0, None, false);
        self.pending.clone_from(&self.all);
        if self.deaths >= MAX_DEATHS {
            log::warn!(
                "TensorFlow Serving ended {MAX_DEATHS} times while it was asked for the signatures of its models; it is \
                 not asked any more, and bodies are converted with what is known"
            );
            self.pending.clear();
        }
    }

    /// Asks for every pending version. Returns why some are still pending.
    fn try_all(&mut self, backend: &Backend, port: u16) -> Option<String> {
        let mut first_problem = None;
        let mut still = Vec::new();
        self.was_lost = false;
        for (model, version) in self.pending.drain(..) {
            let limit = match &first_problem {
                None => TIMEOUT,
                Some(_) => SHORT_TIMEOUT,
            };
            let problem = match answer(backend, port, &model, version, limit) {
                Answer::Listed(signatures) => {
                    backend.signatures.set(&model, version, signatures);
                    continue;
                }
                Answer::None(why) => why,
                Answer::Lost(why) => {
                    self.was_lost = true;
                    why
                }
            };
            still.push((model, version));
            first_problem.get_or_insert(problem);
        }
        self.pending = still;
        first_problem
    }

    fn describe_pending(&self) -> String {
        let (model, version) = &self.pending[0];
        match self.pending.len() {
            1 => format!("version {version} of model {model}"),
            more => format!("version {version} of model {model} and {} more", more - 1),
        }
    }
}

fn answer(backend: &Backend, port: u16, model: &str, version: u64, limit: Duration) -> Answer {
    let path = format!("/v1/models/{model}/versions/{version}/metadata");
    let response = match ask(&backend.client, port, &path, limit) {
        Ok(response) => response,
        Err(Silence::Ended(why)) => return Answer::Lost(why),
        Err(Silence::Local(why) | Silence::TooSlow(why)) => return Answer::None(why),
    };
    match response.status {
        200 => Answer::Listed(Signatures::parse(&response.body)),
        // A model server that does not know the route.
        400 | 404 | 405 | 501 => Answer::Listed(None),
        status => Answer::None(format!("GET {path} was answered with HTTP status {status}")),
    }
}
