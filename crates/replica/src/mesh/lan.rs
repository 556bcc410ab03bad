//! Finding other members on the local network, by multicast DNS (RFC 6762, RFC 6763).
//!
//! Owns: the announcement of this member and the search for others. Must not: tell the mesh's key or the user's name.
//! Next: `../mesh.rs`; docs/gossip.md.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Weak;
use std::thread;

use mdns_sd::{Receiver, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use syncline_gossip::message::{ADDRESSES_MAX, Contact};
use syncline_gossip::overlay::Input;
use syncline_gossip::{Address, Member};

use super::MeshState;
use crate::replica::Inner;

const SERVICE: &str = "_syncline._tcp.local.";

/// The search, until this is dropped.
#[derive(Debug)]
pub(super) struct Lan {
    daemon: Daemon,
}

struct Daemon(ServiceDaemon);

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceDaemon").finish_non_exhaustive()
    }
}

impl Lan {
    pub(super) fn start(
        mesh: Weak<MeshState>,
        replica: Weak<Inner>,
        member: Member,
        name: &str,
        listening: Option<SocketAddr>,
    ) -> Result<Self, String> {
        let words = |error: mdns_sd::Error| error.to_string();
        let daemon = ServiceDaemon::new().map_err(words)?;
        if let Some(listening) = listening {
            daemon.register(announcement(member, name, listening)?).map_err(words)?;
        }
        let events = daemon.browse(SERVICE).map_err(words)?;
        let name = name.to_owned();
        let runtime = tokio::runtime::Handle::current();
        let search = move || {
            let _runtime = runtime.enter();
            search(&events, &mesh, &replica, member, &name);
        };
        thread::Builder::new().name("syncline-lan".to_owned()).spawn(search).map_err(|error| error.to_string())?;
        Ok(Self { daemon: Daemon(daemon) })
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // Says goodbye to the network; the thread ends when the daemon's channel does.
        let _ = self.daemon.0.shutdown();
    }
}

fn announcement(member: Member, name: &str, listening: SocketAddr) -> Result<ServiceInfo, String> {
    let instance = hex(&member);
    let host = format!("syncline-{instance}.local.");
    let properties = HashMap::from([("mesh".to_owned(), name.to_owned()), ("member".to_owned(), instance.clone())]);
    let words = |error: mdns_sd::Error| error.to_string();
    if listening.ip().is_unspecified() {
        let info = ServiceInfo::new(SERVICE, &instance, &host, "", listening.port(), properties).map_err(words)?;
        return Ok(info.enable_addr_auto());
    }
    ServiceInfo::new(SERVICE, &instance, &host, listening.ip(), listening.port(), properties).map_err(words)
}

fn search(events: &Receiver<ServiceEvent>, mesh: &Weak<MeshState>, replica: &Weak<Inner>, me: Member, name: &str) {
    while let Ok(event) = events.recv() {
        let ServiceEvent::ServiceResolved(found) = event else { continue };
        let (Some(mesh), Some(inner)) = (mesh.upgrade(), replica.upgrade()) else { return };
        if let Some(contact) = contact_of(&found, name).filter(|contact| contact.member != me) {
            tracing::debug!(member = %contact.member, "found on the local network");
            mesh.handle(&inner, Input::Found(contact));
        }
    }
}

/// A member of this mesh, if it is one.
fn contact_of(found: &ResolvedService, name: &str) -> Option<Contact> {
    if found.txt_properties.get_property_val_str("mesh") != Some(name) {
        return None;
    }
    let member = member_of(found.txt_properties.get_property_val_str("member")?)?;
    let mut ips: Vec<IpAddr> = found.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr).collect();
    // A link-local address says nothing without the interface.
    ips.retain(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    ips.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6(), *ip));
    let url = |ip: IpAddr| Address::new(&format!("ws://{}", SocketAddr::new(ip, found.port)));
    let addresses = ips.into_iter().filter_map(url).take(ADDRESSES_MAX).collect();
    Some(Contact { member, addresses })
}

fn hex(member: &Member) -> String {
    member.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn member_of(text: &str) -> Option<Member> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some((digit(*high)? << 4 | digit(*low)?) as u8)).collect();
    let bytes = bytes.filter(|_| rest.is_empty())?;
    Some(Member(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_survives_its_name_and_nothing_else_is_one() {
        let member = Member(std::array::from_fn(|byte| byte as u8 * 17));
        assert_eq!(member_of(&hex(&member)), Some(member));
        for text in ["", "00", &hex(&member)[1..], &"x".repeat(32), &"0".repeat(34)] {
            assert_eq!(member_of(text), None, "{text}");
        }
    }

    #[test]
    fn who_is_announced_is_found_by_members_of_the_same_mesh_only() {
        let member = Member([7; 16]);
        let listening = SocketAddr::from(([127, 0, 0, 1], 4000));
        let found = announcement(member, "board", listening).expect("it is announced").as_resolved_service();
        let contact = contact_of(&found, "board").expect("it is found");
        assert_eq!((contact.member, contact.addresses[0].as_str()), (member, "ws://127.0.0.1:4000"));
        assert_eq!(contact_of(&found, "another"), None);
    }
}
