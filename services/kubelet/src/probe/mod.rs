//! Asks containers how they are: by HTTP, by TCP connect, or by a command inside them.

mod http;
mod threshold;

use std::{net::IpAddr, sync::Arc, time::Duration};

use proto::k8s::{
    core::v1::{Container, ExecAction, HttpGetAction, LifecycleHandler, Probe, TcpSocketAction},
    intstr::IntOrString,
};
use tokio::sync::mpsc;

pub use threshold::Counter;

use crate::{pod::snapshot::Verdict, runtime::Runtime};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What a probe loop tells its pod's worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub container_id: String,
    pub container: String,
    pub kind: Kind,
    /// None: one more failure, which changes nothing yet.
    pub verdict: Option<Verdict>,
    /// What went wrong; empty after a success.
    pub message: String,
}

/// Asks on behalf of all pods of a node.
#[derive(Clone)]
pub enum Prober {
    Real {
        runtime: Arc<dyn Runtime>,
        node_ip: IpAddr,
    },
    /// Hollow containers are always well.
    Hollow,
}

/// The container that is asked.
#[derive(Clone, Debug)]
pub struct Subject {
    pub container: Container,
    pub id: String,
    pub ip: Option<IpAddr>,
}

impl Prober {
    /// Asks on and on, and tells what changes; ends when nobody listens, or a startup probe has succeeded.
    pub async fn watch(self, kind: Kind, subject: Subject, tell: mpsc::Sender<Told>) {
        let Some(probe) = kind.of(&subject.container).cloned() else { return };
        let mut counter = Counter::new(&probe);
        let seconds = |value: i32, least: u64| Duration::from_secs(u64::try_from(value).unwrap_or(0).max(least));
        let (period, timeout) = (seconds(probe.period_seconds, 0), seconds(probe.timeout_seconds, 1));
        let period = if period.is_zero() { Duration::from_secs(10) } else { period };
        tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
        // The first answer is wanted at once; after it, probes of a node spread over the period.
        let mut pause = Duration::ZERO;
        loop {
            tokio::time::sleep(pause).await;
            pause = if pause.is_zero() { period.mul_f64(rand::random_range(0.5..1.0)) } else { period };
            let answer = self.ask(&probe, &subject, timeout).await;
            let verdict = counter.count(answer.is_ok());
            let message = answer.err().unwrap_or_default();
            if verdict.is_none() && message.is_empty() {
                continue;
            }
            let told = Told {
                container_id: subject.id.clone(),
                container: subject.container.name.clone(),
                kind,
                verdict,
                message,
            };
            if tell.send(told).await.is_err() || (kind == Kind::Startup && verdict.is_some()) {
                return;
            }
        }
    }

    async fn ask(&self, probe: &Probe, subject: &Subject, timeout: Duration) -> Result<(), String> {
        let Some(handler) = &probe.handler else { return Ok(()) };
        if let Some(exec) = &handler.exec {
            self.exec(exec, &subject.id, timeout).await
        } else if let Some(get) = &handler.http_get {
            self.http(get, subject, timeout).await
        } else if let Some(socket) = &handler.tcp_socket {
            self.tcp(socket, subject, timeout).await
        } else if handler.grpc.is_some() {
            Err("grpc probes are not supported: use httpGet, tcpSocket or exec".to_owned())
        } else {
            Ok(())
        }
    }

    /// Runs a postStart or preStop hook to its end, within `limit`.
    ///
    /// # Errors
    /// Says what the hook ended with.
    pub async fn run_hook(
        &self,
        hook: &LifecycleHandler,
        container: &Container,
        id: &str,
        ip: Option<IpAddr>,
        limit: Duration,
    ) -> Result<(), String> {
        let subject = Subject { container: container.clone(), id: id.to_owned(), ip };
        if let Some(exec) = &hook.exec {
            self.exec(exec, id, limit).await
        } else if let Some(get) = &hook.http_get {
            self.http(get, &subject, limit).await
        } else if let Some(sleep) = &hook.sleep {
            let seconds = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
            tokio::time::sleep(seconds.min(limit)).await;
            Ok(())
        } else {
            Ok(())
        }
    }

    async fn exec(&self, action: &ExecAction, id: &str, timeout: Duration) -> Result<(), String> {
        let Self::Real { runtime, .. } = self else { return Ok(()) };
        let result = runtime.exec_wait(id, &action.command, timeout).await;
        let result = result.map_err(|error| format!("command {:?}: {error}", action.command))?;
        match result.exit_code {
            0 => Ok(()),
            code => match String::from_utf8_lossy(&result.output).trim() {
                "" => Err(format!("command {:?} exited with {code}", action.command)),
                said => Err(said.to_owned()),
            },
        }
    }

    async fn http(&self, action: &HttpGetAction, subject: &Subject, timeout: Duration) -> Result<(), String> {
        let Self::Real { node_ip, .. } = self else { return Ok(()) };
        if action.scheme == "HTTPS" {
            return Err("httpGet with scheme HTTPS is not supported: use HTTP, tcpSocket or exec".to_owned());
        }
        let host = match action.host.as_str() {
            "" => subject.ip.unwrap_or(*node_ip).to_string(),
            host => host.to_owned(),
        };
        let port = port(action.port.as_ref(), &subject.container)?;
        within(timeout, http::get(&host, port, &action.path, &action.http_headers)).await
    }

    async fn tcp(&self, action: &TcpSocketAction, subject: &Subject, timeout: Duration) -> Result<(), String> {
        let Self::Real { node_ip, .. } = self else { return Ok(()) };
        let host = match action.host.as_str() {
            "" => subject.ip.unwrap_or(*node_ip).to_string(),
            host => host.to_owned(),
        };
        let port = port(action.port.as_ref(), &subject.container)?;
        let connect = async {
            let connected = tokio::net::TcpStream::connect((host.as_str(), port)).await;
            connected.map(drop).map_err(|error| format!("dial tcp {host}:{port}: {error}"))
        };
        within(timeout, connect).await
    }
}

async fn within<T>(limit: Duration, ask: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match tokio::time::timeout(limit, ask).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}

/// A port by number, or by its name in the container.
fn port(port: Option<&IntOrString>, container: &Container) -> Result<u16, String> {
    const TEXT: i64 = 1;
    let Some(port) = port else { return Err("the probe names no port".to_owned()) };
    let number = match port.r#type {
        TEXT => match port.str_val.parse::<i32>() {
            Ok(number) => number,
            Err(_) => {
                let named = container.ports.iter().find(|known| known.name == port.str_val);
                named
                    .map(|known| known.container_port)
                    .ok_or_else(|| format!("container \"{}\" has no port named \"{}\"", container.name, port.str_val))?
            }
        },
        _ => port.int_val,
    };
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("{number} is not a port"))
}
