//! The table of models in multi-model mode: which are loaded, and which requests use them.
//!
//! One mutex guards the table and is held only to read or change an entry. Loading and unloading happen outside it, so no
//! model waits for another. How a model is loaded is the work of `load.rs`; HTTP bodies and JSON are the work of `api`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::config::{Config, InstancePorts};
use crate::error::RequestError;
use crate::models::backend::ModelBackend;
use crate::models::load::{Loaded, Loader};
use crate::wait::{Condition, Mutex, MutexGuard, WaitError};

/// An unload gives the model's requests this long to finish.
const UNLOAD_LIMIT: Duration = Duration::from_secs(30);

/// All models.
pub struct Registry {
    loader: Loader,
    models: Mutex<BTreeMap<String, State>>,
    /// Notified under the mutex when a request has stopped using a model.
    lease_ended: Condition,
    /// Requests that use a model, or wait for one.
    leases: AtomicUsize,
    /// Requests that the server works on at once.
    slots: usize,
    /// Longest time of a request.
    deadline: Duration,
}

/// A model from the moment a client asks to load it until nothing of it is left.
/// Loading → Ready → Unloading → gone; a load that fails is gone at once.
enum State {
    Loading,
    Ready(Arc<Loaded>),
    Unloading,
}

/// A request's use of a model. An unload waits for it, up to a limit.
pub struct ModelLease<'a> {
    registry: &'a Registry,
    /// `None` only while it is dropped.
    loaded: Option<Arc<Loaded>>,
    has_permit: bool,
}

impl ModelLease<'_> {
    /// Waits until the model works on fewer requests than it may.
    ///
    /// # Errors
    /// 503 when so many requests wait for models that others would suffer, 504 at the deadline.
    pub fn wait_for_turn(&mut self, deadline: Instant) -> Result<(), RequestError> {
        let (registry, permits) = (self.registry, &self.loaded().permits);
        if !permits.try_acquire() {
            let all = registry.slots;
            // A quarter of the slots is left to models with fewer requests.
            if registry.leases.load(Ordering::Relaxed) > all - all / 4 {
                return Err(RequestError::busy(
                    "Too many requests are waiting for this model; try again.",
                ));
            }
            permits.acquire(deadline).map_err(|error| match error {
                WaitError::Cancelled => RequestError::hung_up(),
                WaitError::TimedOut => {
                    let why = "too many other requests of this model came first";
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
        self.loaded.as_ref().expect("there until dropped")
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
        // Removes files, which takes a while: outside the lock.
        drop(last);
    }
}

/// A name that a load has taken. Dropped unless the model is published, it is free again.
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
    /// No models yet.
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

    /// Loads the model below `url`. Returns when it can be used: the ports of its first instance.
    ///
    /// # Errors
    /// 409 when there is a model of that name, and those of [`Loader::load`].
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

    /// Unloads a model: lets its requests finish, ends its processes, frees its ports and then its name.
    ///
    /// # Errors
    /// 404 when it is not loaded.
    pub fn unload(&self, name: &str) -> Result<(), RequestError> {
        let loaded = self.retire(name)?;
        if !self.wait_until_unused(&loaded) {
            log::warn!("model {name} is unloaded while requests are running");
        }
        self.loader.dismantle(&loaded);
        self.lock().remove(name);
        log::info!("model {name}: unloaded");
        Ok(())
    }

    /// Takes a model out of use: no further request gets it.
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

    /// Waits until no request uses a model that is out of the table. Returns `false` when the time is over.
    fn wait_until_unused(&self, loaded: &Arc<Loaded>) -> bool {
        let deadline = Instant::now() + UNLOAD_LIMIT.min(self.deadline);
        let mut models = self.lock();
        // One reference is the caller's.
        while Arc::strong_count(loaded) > 1 {
            let waited;
            (models, waited) = self.lease_ended.wait_always(models, Some(deadline));
            if waited.is_err() && Instant::now() >= deadline {
                return false;
            }
        }
        true
    }

    /// The model of this name, for a request.
    ///
    /// # Errors
    /// 404 when it is not loaded.
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

    /// Whether models can be loaded and used: the handler for all models, if there is one, must be ready.
    ///
    /// # Errors
    /// When not: what is missing, and for how long.
    pub fn check(&self) -> Result<(), String> {
        self.loader.check()
    }

    /// Names and urls of the loaded models whose names come after `after`, sorted by name, at most `limit` of them; and
    /// whether there are more.
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
    RequestError::new(404, format!("Model {name} is not loaded yet."))
}
