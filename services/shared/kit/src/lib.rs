//! What any process of Forestay needs: life and death of its tasks, certificates, a gRPC server, a clock, telemetry,
//! and the one table of ports and directories. It knows nothing of objects.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod clock;
pub mod grpc;
pub mod layout;
pub mod life;
pub mod telemetry;
pub mod tls;
