//! Whether memory is short: what a model that does not come up in time, or does not answer, may be suffering from.

use std::fs;

use memchr::memmem;

use crate::error::RequestError;
use crate::tfs::client::TfsAnswer;

/// Less than this share of the memory left counts as short.
const SHORT_BELOW: f64 = 0.05;

/// Whether the machine, or the container by its control group, has hardly any memory left.
pub fn is_short() -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let group = container_share(
        &read("/sys/fs/cgroup/memory.current"),
        &read("/sys/fs/cgroup/memory.stat"),
        &read("/sys/fs/cgroup/memory.max"),
    );
    let shares = [machine_share(&read("/proc/meminfo")), group];
    shares
        .into_iter()
        .flatten()
        .any(|share| share < SHORT_BELOW)
}

/// Bytes of memory of the machine, or of the container by its control group if that is less.
pub fn total() -> Option<u64> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let machine =
        field(&read("/proc/meminfo"), "MemTotal:").map(|kilobytes| kilobytes as u64 * 1024);
    let groups = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes", // version 1
    ];
    let groups = groups.map(|path| read(path).trim().parse().ok());
    groups.into_iter().flatten().chain(machine).min()
}

/// How TensorFlow begins the text of an error when it has no memory for a tensor. TensorFlow Serving sends it with the
/// status it also has for too many requests.
const TENSOR_TOO_LARGE: &[u8] = b"OOM when allocating";

/// Makes 507 of an answer, or of an error, that is owed to a lack of memory: SageMaker then unloads other models.
///
/// # Errors
/// What comes in, or 507.
pub fn judge(answer: Result<TfsAnswer, RequestError>) -> Result<TfsAnswer, RequestError> {
    let exhausted = |text: &str| Err(RequestError::new(507, format!("Memory exhausted: {text}")));
    match answer {
        Ok(answer)
            if answer.status == 429 && memmem::find(&answer.body, TENSOR_TOO_LARGE).is_some() =>
        {
            exhausted("TensorFlow Serving has no memory for the request's tensors.")
        }
        // The model server fell again and again.
        Err(error) if error.status == 502 && is_short() => exhausted(&error.text),
        other => other,
    }
}

/// The share of memory that is available, by the text of `/proc/meminfo`.
fn machine_share(meminfo: &str) -> Option<f64> {
    Some(field(meminfo, "MemAvailable:")? / field(meminfo, "MemTotal:")?)
}

/// A field of `/proc/meminfo`, kB.
fn field(meminfo: &str, name: &str) -> Option<f64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The share that is left of a control group's limit; `None` without a limit, which reads `max`.
fn container_share(current: &str, stat: &str, max: &str) -> Option<f64> {
    let (current, max): (f64, f64) = (current.trim().parse().ok()?, max.trim().parse().ok()?);
    // Cached files go when memory is needed.
    let cached = stat
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file "));
    let cached: f64 = cached
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0.0);
    Some(1.0 - (current - cached) / max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_memory_is_told_from_one_of_a_full_queue() {
        let answer = |body: &str| {
            judge(Ok(TfsAnswer {
                status: 429,
                headers: Default::default(),
                body: body.as_bytes().to_vec().into(),
            }))
        };
        let oom = r#"{"error": "OOM when allocating tensor with shape[1,9]"}"#;
        assert_eq!(answer(oom).unwrap_err().status, 507);
        assert!(answer(r#"{"error": "The batch scheduling queue is full"}"#).is_ok());
        let lost = judge(Err(RequestError::bad_request("x")));
        assert_eq!(lost.unwrap_err().status, 400);
    }

    #[test]
    fn shares_of_machine_and_container() {
        let meminfo = "MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:  40 kB\n";
        assert_eq!(machine_share(meminfo), Some(0.04));
        assert_eq!(machine_share(""), None);
        assert_eq!(
            container_share("75\n", "anon 3\ninactive_file 25\n", "100\n"),
            Some(0.5)
        );
        assert_eq!(container_share("75\n", "", "max\n"), None);
        assert_eq!(container_share("", "", ""), None);
    }
}
