//! Tells the service manager how far the server is (sd_notify).
//!
//! Owns: the messages. Must not: matter where there is no service manager.
//! Next: `main.rs`; packaging/systemd.

use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::time::{ClockId, clock_gettime};

/// The variable in which the service manager names its socket.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Says something, if there is somebody to say it to.
pub(crate) fn notify(state: &str) {
    let Some(name) = std::env::var_os(SOCKET).and_then(|name| name.into_string().ok()) else { return };
    if let Err(error) = send(&name, state) {
        tracing::warn!("the service manager does not hear: {error}");
    }
}

/// Says that files are read again, since when.
pub(crate) fn notify_reloading() {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from).unwrap_or_default();
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
}

fn send(name: &str, state: &str) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    match name.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => {
            let address = <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?;
            socket.send_to_addr(state.as_bytes(), &address)?;
        }
        _ => {
            socket.send_to_addr(state.as_bytes(), &SocketAddr::from_pathname(name)?)?;
        }
    }
    Ok(())
}
