//! Assigns ports to the TensorFlow Serving instances that start with the server, and checks the range from which
//! multi-model mode takes ports later.
//!
//! The functions depend on the settings alone. Whether a port is free shows when an instance starts
//! (`tfs/instance.rs`).

use crate::config::settings::model_server::{INSTANCE_COUNT, PORT_RANGE};
use crate::config::settings::server::PORT;

/// The two ports of a TensorFlow Serving instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstancePorts {
    /// Value of `--port`.
    pub grpc: u16,
    /// Value of `--rest_api_port`.
    pub rest: u16,
}

/// Ports of instance 0 when no range is given. Instance i takes these plus i.
const FIRST_PORTS: InstancePorts = InstancePorts {
    grpc: 9000,
    rest: 8501,
};

/// Maximum number of instances without a range. From instance 499 on, REST ports would collide with gRPC ports.
const MAX_WITHOUT_RANGE: u32 = 400;

/// Assigns ports to `instances` (1 to 1000) instances. `listen_port` is the HTTP server's port.
///
/// # Errors
/// The setting that does not fit, and the setting to change.
pub fn assign(
    range: Option<(u16, u16)>,
    instances: u32,
    listen_port: u16,
) -> Result<Vec<InstancePorts>, String> {
    let ports: Vec<InstancePorts> = match range {
        Some((low, high)) => {
            if u32::from(high) < u32::from(low) + 2 * instances - 1 {
                return Err(format!(
                    "{} is \"{low}-{high}\", too small for {} = {instances}; accepted: {}",
                    PORT_RANGE.name, INSTANCE_COUNT.name, PORT_RANGE.accepts
                ));
            }
            (0..instances as u16)
                .map(|i| InstancePorts {
                    grpc: low + 2 * i,
                    rest: low + 2 * i + 1,
                })
                .collect()
        }
        None if instances > MAX_WITHOUT_RANGE => {
            return Err(format!(
                "{} is {instances}: more than {MAX_WITHOUT_RANGE} instances need {}",
                INSTANCE_COUNT.name, PORT_RANGE.name
            ));
        }
        None => (0..instances as u16)
            .map(|i| InstancePorts {
                grpc: FIRST_PORTS.grpc + i,
                rest: FIRST_PORTS.rest + i,
            })
            .collect(),
    };
    let collides = |p: &InstancePorts| p.grpc == listen_port || p.rest == listen_port;
    match ports.iter().position(collides) {
        Some(i) => Err(format!(
            "{} is {listen_port}, which TensorFlow Serving instance {i} needs; set {} to other ports",
            PORT.name, PORT_RANGE.name
        )),
        None => Ok(ports),
    }
}

/// Checks that the port range of multi-model mode has room for one model.
///
/// # Errors
/// A message that the range is too small, and the accepted format.
pub fn check_for_models((low, high): (u16, u16), instances: u32) -> Result<(), String> {
    // Counts pairs as `models::ports` hands them out.
    if u32::from(high - low) / 2 >= instances {
        return Ok(());
    }
    Err(format!(
        "{} is \"{low}-{high}\", too small for a model with {} = {instances}; accepted: LOW-HIGH with two ports for \
         each instance, and one more",
        PORT_RANGE.name, INSTANCE_COUNT.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(range: Option<(u16, u16)>, instances: u32) -> Vec<(u16, u16)> {
        let ports = assign(range, instances, 8080).unwrap();
        ports.iter().map(|p| (p.grpc, p.rest)).collect()
    }

    #[test]
    fn assigns_ports_from_the_range() {
        assert_eq!(pairs(Some((9000, 9003)), 2), [(9000, 9001), (9002, 9003)]);
        assert_eq!(pairs(Some((65534, 65535)), 1), [(65534, 65535)]);
    }

    #[test]
    fn assigns_default_ports_without_a_range() {
        assert_eq!(pairs(None, 3), [(9000, 8501), (9001, 8502), (9002, 8503)]);
        let mut all: Vec<u16> = pairs(None, MAX_WITHOUT_RANGE)
            .into_iter()
            .flat_map(|(grpc, rest)| [grpc, rest])
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 800);
    }

    #[test]
    fn documentation_names_the_first_ports() {
        let documented = format!(
            "without a range, {}+i and {}+i",
            FIRST_PORTS.grpc, FIRST_PORTS.rest
        );
        assert!(
            PORT_RANGE.doc.to_lowercase().contains(&documented),
            "{}",
            PORT_RANGE.doc
        );
    }

    #[test]
    fn refusals_name_the_setting_to_change() {
        let refused = |range, instances, port| assign(range, instances, port).unwrap_err();
        assert_eq!(
            refused(Some((9000, 9002)), 2, 8080),
            "SAGEMAKER_SAFE_PORT_RANGE is \"9000-9002\", too small for SAGEMAKER_TFS_INSTANCE_COUNT = 2; accepted: \
             LOW-HIGH, a range of ports with two ports for each instance"
        );
        assert_eq!(
            refused(None, 401, 8080),
            "SAGEMAKER_TFS_INSTANCE_COUNT is 401: more than 400 instances need SAGEMAKER_SAFE_PORT_RANGE"
        );
        assert_eq!(
            refused(Some((8079, 8082)), 2, 8082),
            "SAGEMAKER_BIND_TO_PORT is 8082, which TensorFlow Serving instance 1 needs; set SAGEMAKER_SAFE_PORT_RANGE \
             to other ports"
        );
        for port in [8501, 9000] {
            assert!(refused(None, 1, port).contains("instance 0"));
        }
        assert!(assign(Some((8080, 8090)), 1, 8090).is_ok());
    }

    #[test]
    fn range_for_models_needs_a_spare_port() {
        assert_eq!(check_for_models((9000, 9999), 499), Ok(()));
        assert_eq!(
            check_for_models((9000, 9001), 1).unwrap_err(),
            "SAGEMAKER_SAFE_PORT_RANGE is \"9000-9001\", too small for a model with SAGEMAKER_TFS_INSTANCE_COUNT = 1; \
             accepted: LOW-HIGH with two ports for each instance, and one more"
        );
    }
}
