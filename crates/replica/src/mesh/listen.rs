//! Listening for other members, without an HTTP server.
//!
//! Owns: the port, how many strangers may be at it. Must not: serve anybody who is no member.
//! Next: `../mesh.rs`, `../connection.rs`.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use syncline_gossip::Address;
use syncline_gossip::message::ADDRESSES_MAX;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_tungstenite::accept_async_with_config;

use super::MeshError;
use crate::connection::{self, websocket_config};
use crate::replica::Inner;
use crate::stream::Counted;

/// Connections at one time: neighbours are few, the rest are strangers and handshakes.
const CONNECTIONS_MAX: usize = 64;

/// Bytes of an HTTP request that asks for a websocket.
const UPGRADE_BYTES_MAX: u64 = 16 * 1024;

pub(super) async fn bind(address: SocketAddr) -> Result<(SocketAddr, TcpListener), MeshError> {
    let failed = |source| MeshError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    Ok((listener.local_addr().map_err(failed)?, listener))
}

pub(super) async fn accept(listener: TcpListener, replica: Weak<Inner>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(inner) = replica.upgrade() else { return };
                tokio::spawn(async move {
                    if let Err(reason) = serve(inner, stream).await {
                        tracing::debug!(%peer, "a connection for the mesh ended: {reason}");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::error!("cannot accept a connection for the mesh: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(inner: Arc<Inner>, stream: TcpStream) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let read_max = inner.limits().join_frame_bytes_max as u64 + UPGRADE_BYTES_MAX;
    let config = websocket_config(&inner.limits());
    let upgrade = accept_async_with_config(Counted::new(stream, read_max), Some(config));
    let upgraded = tokio::time::timeout(inner.limits().join_timeout, upgrade).await;
    let socket = upgraded.map_err(|_| "no websocket in time".to_owned())?.map_err(|error| error.to_string())?;
    connection::accept_member(inner, socket).await;
    Ok(())
}

/// Where others may reach a listener.
pub(super) fn reachable_at(listening: SocketAddr) -> Vec<Address> {
    let ips = if listening.ip().is_unspecified() { own_ips(listening.is_ipv6()) } else { vec![listening.ip()] };
    let url = |ip: IpAddr| Address::new(&format!("ws://{}", SocketAddr::new(ip, listening.port())));
    ips.into_iter().filter_map(url).take(ADDRESSES_MAX).collect()
}

#[cfg(feature = "lan")]
fn own_ips(v6_too: bool) -> Vec<IpAddr> {
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    let mut ips: Vec<IpAddr> = found.iter().map(if_addrs::Interface::ip).filter(|ip| ip.is_ipv4() || v6_too).collect();
    ips.retain(|ip| !ip.is_loopback() && !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    // The older family first: fewer networks lack it.
    ips.sort_by_key(IpAddr::is_ipv6);
    if ips.is_empty() { vec![IpAddr::from([127, 0, 0, 1])] } else { ips }
}

#[cfg(not(feature = "lan"))]
fn own_ips(_v6_too: bool) -> Vec<IpAddr> {
    vec![IpAddr::from([127, 0, 0, 1])]
}
