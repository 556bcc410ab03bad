//! How many connections there may be, in all and from one address.
//!
//! Owns: that count, and whose address counts behind a proxy. Must not: know what a connection is for.
//! Next: `server.rs`; docs/server.md, "Limits".

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::http::HeaderMap;

/// The header in which proxies say for whom they ask.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Most connections from one address, unless something else is set; for addresses of other machines.
const PER_ADDRESS_MAX: usize = 1_024;

/// Who may connect, as far as numbers and proxies go.
#[derive(Debug, Clone)]
pub struct Doors {
    /// Most connections in all.
    pub connections_max: usize,
    /// Most from one address; `None` is 1,024 from each other machine, and any number from this one.
    pub per_address_max: Option<usize>,
    /// Who is believed about the address for which it asks.
    pub trusted_proxies: Vec<Network>,
}

impl Default for Doors {
    fn default() -> Self {
        Self { connections_max: 50_000, per_address_max: None, trusted_proxies: Vec::new() }
    }
}

/// Addresses that begin alike: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: u128,
    bits: u8,
}

/// Addresses as numbers of one length: those of IPv4 as IPv6 writes them.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Network {
    fn has(self, address: IpAddr) -> bool {
        let differs = number(address) ^ self.address;
        self.bits == 0 || differs >> (128 - u32::from(self.bits)) == 0
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write an address, or one with a number of bits such as 10.0.0.0/8".to_owned();
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(whole), |bits| bits.parse::<u8>().map_err(|_| wrong()))?;
        if bits > whole {
            return Err(wrong());
        }
        Ok(Self { address: number(address), bits: 128 - whole + bits })
    }
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// There are as many as there may be.
    #[error("the server has as many connections as it may (connections_max)")]
    All,
    /// There are as many from this address as there may be.
    #[error("this address has as many connections as it may (connections_per_address_max)")]
    Address,
}

impl Full {
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::All => "connections",
            Self::Address => "address_connections",
        }
    }
}

/// Counts connections.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    doors: RwLock<Arc<Doors>>,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A connection that is counted, while it lasts.
#[derive(Debug)]
pub(crate) struct Place {
    counts: Arc<Mutex<Counts>>,
    /// Counted in all.
    in_all: bool,
    address: Option<IpAddr>,
}

impl Doorkeeper {
    pub(crate) fn new(doors: Doors) -> Self {
        Self { doors: RwLock::new(Arc::new(doors)), counts: Arc::default() }
    }

    /// Counts by other rules from here on. Who is in stays.
    pub(crate) fn set(&self, doors: Doors) {
        *self.doors.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(doors);
    }

    fn doors(&self) -> Arc<Doors> {
        Arc::clone(&self.doors.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a connection that has come in. That of a proxy counts as one of all, and its requests for their own address.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Place, Full> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= self.doors().connections_max {
            return Err(Full::All);
        }
        let address = (!self.trusts(address)).then_some(address);
        self.count(&mut counts, address)?;
        counts.all += 1;
        drop(counts);
        Ok(Place { counts: Arc::clone(&self.counts), in_all: true, address: address.map(household) })
    }

    /// Counts a websocket for the address for which a proxy asks; `None` where whoever asks is no proxy, and is counted.
    pub(crate) fn enter_for(&self, proxy: IpAddr, headers: &HeaderMap) -> Result<Option<Place>, Full> {
        let Some(address) = self.forwarded(proxy, headers) else { return Ok(None) };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        self.count(&mut counts, Some(address))?;
        drop(counts);
        Ok(Some(Place { counts: Arc::clone(&self.counts), in_all: false, address: Some(household(address)) }))
    }

    /// The address for which a proxy asks: the last in the header that is no proxy itself.
    pub(crate) fn forwarded(&self, proxy: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        if !self.trusts(proxy) {
            return None;
        }
        let values = headers.get_all(FORWARDED_FOR).into_iter().filter_map(|value| value.to_str().ok());
        let named: Vec<IpAddr> =
            values.flat_map(|value| value.split(',')).map_while(|one| one.trim().parse().ok()).collect();
        named.into_iter().rev().find(|address| !self.trusts(*address))
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.doors().trusted_proxies.iter().any(|network| network.has(address))
    }

    fn count(&self, counts: &mut Counts, address: Option<IpAddr>) -> Result<(), Full> {
        let Some(address) = address else { return Ok(()) };
        let max = match self.doors().per_address_max {
            Some(max) => max,
            None if address.to_canonical().is_loopback() => usize::MAX,
            None => PER_ADDRESS_MAX,
        };
        let count = counts.by_address.entry(household(address)).or_default();
        if *count >= max {
            return Err(Full::Address);
        }
        *count += 1;
        Ok(())
    }
}

/// Whoever has one address of IPv6 has all that begin with the same 64 bits.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= usize::from(self.in_all);
        let Some(address) = self.address else { return };
        if let Some(count) = counts.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn keeper(per_address_max: Option<usize>, proxies: &[&str]) -> Doorkeeper {
        let trusted_proxies = proxies.iter().map(|text| text.parse().expect("a network")).collect();
        Doorkeeper::new(Doors { connections_max: 3, per_address_max, trusted_proxies })
    }

    #[test]
    fn connections_are_counted_in_all_and_for_each_address_while_they_last() {
        let keeper = keeper(Some(2), &[]);
        let first = keeper.enter(address("192.0.2.1")).expect("room");
        let _second = keeper.enter(address("192.0.2.1")).expect("room");
        assert_eq!(keeper.enter(address("::ffff:192.0.2.1")).err(), Some(Full::Address), "the same address");
        drop(first);
        let _third = keeper.enter(address("192.0.2.1")).expect("room again");
        let _other = keeper.enter(address("2001:db8::1")).expect("another address");
        assert_eq!(keeper.enter(address("2001:db8::2")).err(), Some(Full::All));
    }

    #[test]
    fn this_machine_may_have_any_number_unless_one_is_set() {
        let keeper = Doorkeeper::new(Doors::default());
        let places: Vec<_> = (0..=PER_ADDRESS_MAX).map(|_| keeper.enter(address("127.0.0.1")).expect("room")).collect();
        assert_eq!(places.len(), PER_ADDRESS_MAX + 1);
        let others: Vec<_> = (0..=PER_ADDRESS_MAX).map(|_| keeper.enter(address("192.0.2.1"))).collect();
        assert_eq!(others.iter().filter(|place| place.is_err()).count(), 1);
    }

    #[test]
    fn a_proxy_is_believed_about_the_last_address_that_is_none_and_others_are_not() {
        let keeper = keeper(Some(1), &["10.0.0.0/8", "fd00::/8"]);
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED_FOR, "192.0.2.9, 192.0.2.1, 10.1.1.1".parse().expect("a header"));
        let proxy = address("10.0.0.7");
        assert_eq!(
            keeper.forwarded(proxy, &headers),
            Some(address("192.0.2.1")),
            "the client may have made up the first"
        );
        assert_eq!(keeper.forwarded(address("192.0.2.66"), &headers), None);
        let _one = keeper.enter_for(proxy, &headers).expect("room");
        assert_eq!(keeper.enter_for(proxy, &headers).err(), Some(Full::Address));
        let _proxies = [keeper.enter(proxy), keeper.enter(proxy)].map(|place| place.expect("a proxy has many"));
        for wrong in ["10.0.0.0/33", "ten", "10.0.0.0/", "fd00::/129"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
