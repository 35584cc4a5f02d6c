//! Whether a process can do its work, as the code that watches it reports to the supervisor.

/// What is known about a process that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It can serve: all versions of its models are AVAILABLE, or its script is loaded.
    Ready,
    /// It cannot serve now; the text says why.
    NotReady(String),
    /// It will never serve everything that it was started for, so waiting longer is pointless.
    Failed {
        /// Why.
        reason: String,
        /// Whether the process ran out of memory or another resource.
        out_of_resources: bool,
    },
}
