//! The server's host: the server that ships, on a listener of the simulated network.
//!
//! Owns: that listener, starting again over the same files. Must not: hold on to a server that has died: its store
//! would stay open. Next: `world.rs`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::serve::Listener;
use syncline_core::loader::InProcess;
use syncline_replica::metrics::Metrics;
use syncline_server::access::Rules;
use syncline_server::{Config, Server, ServerError};
use syncline_store::StoreError;
use turmoil::net::{TcpListener, TcpStream};

/// The server's name on the network.
pub(crate) const NAME: &str = "server";

/// The port that it listens on.
pub(crate) const PORT: u16 = 80;

/// The counters of the server that runs.
pub(crate) type Counters = Arc<Mutex<Option<Metrics>>>;

struct Simulated(TcpListener);

impl Listener for Simulated {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Runs a server until its host is crashed.
pub(crate) async fn run(data: PathBuf, counters: Counters) -> turmoil::Result {
    let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT);
    let server = loop {
        let listener = Simulated(TcpListener::bind(listen).await?);
        let rules = Rules { open: true, ..Rules::default() };
        let config = Config { rules, ..Config::new(listen, data.clone(), Arc::new(InProcess)) };
        match Server::start_on(listener, config).await {
            Ok(server) => break server,
            // The threads of the store that died are real, and take real time to end.
            Err(ServerError::Store(StoreError::InUse { .. })) => {
                tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(1))).await?;
            }
            Err(error) => return Err(Box::new(error)),
        }
    };
    *counters.lock().unwrap_or_else(PoisonError::into_inner) = Some(server.replica().metrics().clone());
    std::future::pending::<()>().await;
    drop(server);
    Ok(())
}
