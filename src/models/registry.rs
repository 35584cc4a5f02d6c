//! The table of models in multi-model mode: which models are loaded, and which requests use them.
//!
//! One mutex guards the table and is held only to read or change an entry. Loading and unloading happen outside it, so
//! no model waits for another. `load.rs` loads a model; `api` handles HTTP bodies and JSON.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::config::{Config, InstancePorts};
use crate::error::{RequestError, clipped};
use crate::models::backend::ModelBackend;
use crate::models::load::{Loaded, Loader};
use crate::wait::{Condition, Mutex, MutexGuard, WaitError};

/// The time that an unload gives the model's requests to finish.
const UNLOAD_LIMIT: Duration = Duration::from_secs(30);

/// The table of all models.
pub struct Registry {
    loader: Loader,
    models: Mutex<BTreeMap<String, State>>,
    /// Notified under the mutex when a request has stopped using a model.
    lease_ended: Condition,
    /// The number of requests that use a model or wait for a permit of one.
    leases: AtomicUsize,
    /// The most requests that the server works on at once.
    slots: usize,
    /// The time limit of a request.
    deadline: Duration,
}

/// The state of a model, from the request to load it until nothing of it is left:
/// Loading → Ready → Unloading → no entry. A load that fails leaves no entry.
enum State {
    Loading,
    Ready(Arc<Loaded>),
    Unloading,
}

/// The use of a model by a request. An unload waits until all leases are dropped, up to a limit.
pub struct ModelLease<'a> {
    registry: &'a Registry,
    /// `None` only while this is dropped.
    loaded: Option<Arc<Loaded>>,
    has_permit: bool,
}

impl ModelLease<'_> {
    /// Takes one of the model's permits, and waits for one until `deadline`.
    ///
    /// # Errors
    /// 503 when so many requests wait that they would take the slots of other models, 504 at the deadline, 499 when the
    /// client has hung up.
    pub fn wait_for_turn(&mut self, deadline: Instant) -> Result<(), RequestError> {
        let (registry, permits) = (self.registry, &self.loaded().permits);
        if !permits.try_acquire() {
            let all = registry.slots;
            // A quarter of the slots is left to models with free permits.
            if registry.leases.load(Ordering::Relaxed) > all - all / 4 {
                return Err(RequestError::busy(
                    "Too many requests are waiting for this model; try again.",
                ));
            }
            permits.acquire(deadline).map_err(|error| match error {
                WaitError::Cancelled => RequestError::hung_up(),
                WaitError::TimedOut => {
                    let why = "too many other requests for this model came first";
                    RequestError::deadline(registry.deadline, why)
                }
            })?;
        }
        self.has_permit = true;
        Ok(())
    }

    /// What serves the model.
    pub fn backend(&self) -> &ModelBackend {
        &self.loaded().backend
    }

    /// Where the model was loaded from.
    pub fn url(&self) -> &str {
        &self.loaded().url
    }

    fn loaded(&self) -> &Loaded {
        self.loaded.as_ref().expect("present until dropped")
    }
}

impl Drop for ModelLease<'_> {
    fn drop(&mut self) {
        let registry = self.registry;
        registry.leases.fetch_sub(1, Ordering::Relaxed);
        if self.has_permit {
            self.loaded().permits.release();
        }
        // Notify under the lock, so `unload` cannot miss it.
        let models = registry.lock();
        let last = self.loaded.take().and_then(Arc::into_inner);
        registry.lease_ended.notify_all();
        drop(models);
        // May remove the model's files, which takes a while: outside the lock.
        drop(last);
    }
}

/// A name that a load has reserved. Dropping it makes the name free again, unless the model was published.
struct ReservedName<'a> {
    registry: &'a Registry,
    name: &'a str,
    is_published: bool,
}

impl ReservedName<'_> {
    fn publish(mut self, loaded: Loaded) {
        let state = State::Ready(Arc::new(loaded));
        self.registry.lock().insert(self.name.to_owned(), state);
        self.is_published = true;
    }
}

impl Drop for ReservedName<'_> {
    fn drop(&mut self) {
        if !self.is_published {
            self.registry.lock().remove(self.name);
        }
    }
}

impl Registry {
    /// A registry without models.
    pub fn new(config: &Config, loader: Loader) -> Self {
        Self {
            loader,
            models: Mutex::new(BTreeMap::new()),
            lease_ended: Condition::new(),
            leases: AtomicUsize::new(0),
            slots: config.slots(),
            deadline: config.deadline,
        }
    }

    /// Loads the model below `url`, and returns the ports of its first instance when the model can be used.
    ///
    /// # Errors
    /// 409 when the name is taken, and the errors of [`Loader::load`].
    pub fn load(&self, name: &str, url: &str) -> Result<InstancePorts, RequestError> {
        let reserved = self.reserve(name)?;
        let begin = Instant::now();
        let loaded = self.loader.load(name, url).inspect_err(|error| {
            log::error!("model {name} cannot be loaded: {}", error.text);
        })?;
        let ports = loaded.ports();
        reserved.publish(loaded);
        log::info!(
            "model {name}: loaded in {:.2} s",
            begin.elapsed().as_secs_f64()
        );
        Ok(ports)
    }

    fn reserve<'a>(&'a self, name: &'a str) -> Result<ReservedName<'a>, RequestError> {
        let mut models = self.lock();
        if models.contains_key(name) {
            let text = format!("Model {name} is already loaded.");
            return Err(RequestError::new(409, text));
        }
        models.insert(name.to_owned(), State::Loading);
        Ok(ReservedName {
            registry: self,
            name,
            is_published: false,
        })
    }

    /// Unloads a model: lets its requests finish, stops its processes, frees its ports and then its name.
    ///
    /// # Errors
    /// 404 when the model is not loaded.
    pub fn unload(&self, name: &str) -> Result<(), RequestError> {
        let loaded = self.retire(name)?;
        if !self.wait_until_unused(&loaded) {
            log::warn!("model {name}: unloading while requests are still running");
        }
        self.loader.dismantle(&loaded);
        self.lock().remove(name);
        log::info!("model {name}: unloaded");
        Ok(())
    }

    /// Takes a model out of use: from now on no request gets a lease of it.
    fn retire(&self, name: &str) -> Result<Arc<Loaded>, RequestError> {
        let mut models = self.lock();
        match models.get_mut(name) {
            Some(state @ State::Ready(_)) => match std::mem::replace(state, State::Unloading) {
                State::Ready(loaded) => Ok(loaded),
                State::Loading | State::Unloading => unreachable!("the pattern says Ready"),
            },
            _ => Err(not_loaded(name)),
        }
    }

    /// Waits until no request uses a retired model. Returns `false` if requests still use it after the time limit.
    fn wait_until_unused(&self, loaded: &Arc<Loaded>) -> bool {
        let deadline = Instant::now() + UNLOAD_LIMIT.min(self.deadline);
        let mut models = self.lock();
        // The caller holds one reference, and each lease another.
        while Arc::strong_count(loaded) > 1 {
            let waited;
            (models, waited) = self.lease_ended.wait_always(models, Some(deadline));
            if waited.is_err() && Instant::now() >= deadline {
                return false;
            }
        }
        true
    }

    /// A lease of the model with this name.
    ///
    /// # Errors
    /// 404 when the model is not loaded.
    pub fn get(&self, name: &str) -> Result<ModelLease<'_>, RequestError> {
        match self.lock().get(name) {
            Some(State::Ready(loaded)) => {
                self.leases.fetch_add(1, Ordering::Relaxed);
                Ok(ModelLease {
                    registry: self,
                    loaded: Some(Arc::clone(loaded)),
                    has_permit: false,
                })
            }
            _ => Err(not_loaded(name)),
        }
    }

    /// Checks that models can be loaded and used: the handler for all models, if there is one, must be ready.
    ///
    /// # Errors
    /// What is not ready, and for how long.
    pub fn check(&self) -> Result<(), String> {
        self.loader.check()
    }

    /// The names and URLs of loaded models, sorted by name: at most `limit` models whose names come after `after`. The
    /// `bool` says whether there are more.
    pub fn list(&self, after: &str, limit: usize) -> (Vec<(String, String)>, bool) {
        let models = self.lock();
        let mut rest = models
            .range::<str, _>((Bound::Excluded(after), Bound::Unbounded))
            .filter_map(|(name, state)| match state {
                State::Ready(loaded) => Some((name.clone(), loaded.url.clone())),
                State::Loading | State::Unloading => None,
            });
        let page = rest.by_ref().take(limit).collect();
        (page, rest.next().is_some())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.models.lock()
    }
}

fn not_loaded(name: &str) -> RequestError {
    RequestError::new(404, format!("Model {} is not loaded yet.", clipped(name)))
}
