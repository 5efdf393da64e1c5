//! Asks containers how they are: by HTTP, by TCP connect, or by a command inside them.

mod http;
mod threshold;

use std::{net::IpAddr, sync::Arc, time::Duration};

use proto::k8s::{
    core::v1::{Container, ExecAction, HttpGetAction, LifecycleHandler, Probe, TcpSocketAction},
    intstr::IntOrString,
};
use tokio::sync::mpsc;
use tracing::debug;

pub use threshold::Counter;

use crate::{
    pod::snapshot::Verdict,
    runtime::{Error, Runtime},
};

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

/// Why there is no good answer.
enum Trouble {
    /// The container gave a bad one, or none.
    Failed(String),
    /// The question did not reach it: the runtime does not answer.
    NotAsked(String),
}

impl Trouble {
    fn into_words(self) -> String {
        match self {
            Self::Failed(why) | Self::NotAsked(why) => why,
        }
    }
}

/// The container that is asked.
#[derive(Clone, Debug)]
pub struct Subject {
    pub container: Container,
    pub id: String,
    pub ip: Option<IpAddr>,
}

impl Prober {
    /// Asks on and on, and tells what changes; ends when nobody listens, or with a verdict that is the last: the one of
    /// a startup probe, and a failed liveness probe's, after which the container is stopped.
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
            let answer = match self.ask(&probe, &subject, timeout).await {
                Ok(()) => Ok(()),
                Err(Trouble::Failed(message)) => Err(message),
                // That says nothing of the container.
                Err(Trouble::NotAsked(why)) => {
                    debug!(container = subject.container.name, why, "{} probe could not ask", kind.as_str());
                    continue;
                }
            };
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
            let is_last = match kind {
                Kind::Startup => verdict.is_some(),
                Kind::Liveness => verdict == Some(Verdict::Failure),
                Kind::Readiness => false,
            };
            if tell.send(told).await.is_err() || is_last {
                return;
            }
        }
    }

    async fn ask(&self, probe: &Probe, subject: &Subject, timeout: Duration) -> Result<(), Trouble> {
        let Some(handler) = &probe.handler else { return Ok(()) };
        if let Some(exec) = &handler.exec {
            return self.exec(exec, &subject.id, timeout).await;
        }
        let answer = if let Some(get) = &handler.http_get {
            self.http(get, subject, timeout).await
        } else if let Some(socket) = &handler.tcp_socket {
            self.tcp(socket, subject, timeout).await
        } else if handler.grpc.is_some() {
            Err("grpc probes are not supported: use httpGet, tcpSocket or exec".to_owned())
        } else {
            Ok(())
        };
        answer.map_err(Trouble::Failed)
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
            self.exec(exec, id, limit).await.map_err(Trouble::into_words)
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

    async fn exec(&self, action: &ExecAction, id: &str, timeout: Duration) -> Result<(), Trouble> {
        let Self::Real { runtime, .. } = self else { return Ok(()) };
        let result = match runtime.exec_wait(id, &action.command, timeout).await {
            Ok(result) => result,
            Err(error @ Error::Unavailable(_)) => return Err(Trouble::NotAsked(error.to_string())),
            Err(error) => return Err(Trouble::Failed(format!("command {:?}: {error}", action.command))),
        };
        match result.exit_code {
            0 => Ok(()),
            code => Err(Trouble::Failed(match String::from_utf8_lossy(&result.output).trim() {
                "" => format!("command {:?} exited with {code}", action.command),
                said => said.to_owned(),
            })),
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

#[cfg(test)]
mod tests {
    use proto::k8s::core::v1::ProbeHandler;

    use super::*;
    use crate::runtime::fake::Fake;

    /// A liveness probe by this command that needs one answer.
    fn probe(program: &str) -> Probe {
        let exec = Some(ExecAction { command: vec![program.into()] });
        let handler = Some(ProbeHandler { exec, ..Default::default() });
        Probe { handler, failure_threshold: 1, ..Default::default() }
    }

    fn prober(fake: &Fake) -> Prober {
        Prober::Real { runtime: Arc::new(fake.clone()), node_ip: [192, 0, 2, 7].into() }
    }

    fn subject(liveness_probe: Probe) -> Subject {
        let container = Container { name: "a".into(), liveness_probe: Some(liveness_probe), ..Default::default() };
        Subject { container, id: "c".into(), ip: None }
    }

    /// A Docker that hung for a while had every container with an exec probe restarted.
    #[tokio::test]
    async fn a_runtime_that_does_not_answer_is_no_fault_of_the_container() {
        let fake = Fake::new();
        let ask = async |program: &str| {
            let probe = probe(program);
            prober(&fake).ask(&probe, &subject(probe.clone()), Duration::from_secs(1)).await
        };
        assert!(ask("true").await.is_ok());
        assert!(matches!(ask("false").await, Err(Trouble::Failed(_))));
        fake.hang(true);
        assert!(matches!(ask("false").await, Err(Trouble::NotAsked(_))));
    }

    #[tokio::test]
    async fn a_failed_liveness_probe_asks_no_further() {
        let (tell, mut told) = mpsc::channel(8);
        tokio::spawn(prober(&Fake::new()).watch(Kind::Liveness, subject(probe("false")), tell));
        assert_eq!(told.recv().await.unwrap().verdict, Some(Verdict::Failure));
        assert_eq!(told.recv().await, None);
    }
}
