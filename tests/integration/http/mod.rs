//! The HTTP server: connections, limits, and malformed requests and hostile clients.

mod chunked_bodies;
mod connections;
mod descriptors;
mod hostile_clients;
mod long_values;
mod malformed_requests;
mod memory;
mod overload;
mod protocol;
mod responses;
mod routes;
mod waiting;
