//! Whom a member knows beside its neighbours: HyParView's passive view, and the addresses that were given by hand.
//!
//! Owns: what is remembered, when an address may be dialled again. Must not: know connections.
//! Next: `overlay.rs`; docs/protocol.md §11, "Neighbours".

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Config;
use crate::message::{Address, Contact, Member};
use crate::random::Random;

/// What is known of members that are no neighbours, or may be none tomorrow.
#[derive(Debug)]
pub(crate) struct Views {
    me: Member,
    given: BTreeMap<Address, Tries>,
    contacts: BTreeMap<Member, Known>,
}

#[derive(Debug)]
struct Known {
    addresses: Vec<Address>,
    tries: Tries,
}

#[derive(Debug, Default)]
struct Tries {
    /// Since the last success.
    failures: u32,
    not_before: Duration,
    /// Who was last found there.
    found: Option<Member>,
}

impl Tries {
    fn fail(&mut self, now: Duration, wait: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + wait;
    }
}

impl Views {
    pub(crate) fn new(me: Member) -> Self {
        Self { me, given: BTreeMap::new(), contacts: BTreeMap::new() }
    }

    /// An address that is tried for ever.
    pub(crate) fn give(&mut self, address: Address) {
        self.given.entry(address).or_default();
    }

    /// Somebody that another knows, or that was found. Who has been at the address before is there no more.
    pub(crate) fn learn(&mut self, contact: Contact, config: &Config, random: &mut Random) {
        let Contact { member, addresses } = contact;
        if member == self.me || addresses.is_empty() {
            return;
        }
        if let Some(known) = self.contacts.get_mut(&member) {
            known.addresses = addresses;
            return;
        }
        self.contacts.retain(|_, known| !known.addresses.iter().any(|address| addresses.contains(address)));
        if self.contacts.len() >= config.contacts_max {
            self.forget_one(random);
        }
        self.contacts.insert(member, Known { addresses, tries: Tries::default() });
    }

    /// Makes room: of those that could not be dialled first.
    fn forget_one(&mut self, random: &mut Random) {
        let worst = self.contacts.values().map(|known| known.tries.failures).max().unwrap_or(0);
        let at_worst = self.contacts.iter().filter(|(_, known)| known.tries.failures == worst);
        let members: Vec<Member> = at_worst.map(|(member, _)| *member).collect();
        if let Some(member) = random.one_of(&members) {
            self.contacts.remove(&member);
        }
    }

    /// Addresses that may be dialled, maybe twice: not those of neighbours, nor those that are being dialled.
    pub(crate) fn candidates(
        &self,
        now: Duration,
        is_neighbour: impl Fn(&Member) -> bool + Copy,
        is_dialling: impl Fn(&Address) -> bool,
    ) -> impl Iterator<Item = &Address> {
        let far = move |member: &Member| *member != self.me && !is_neighbour(member);
        let given = self.given.iter().filter(move |(_, tries)| tries.found.as_ref().is_none_or(far));
        let known =
            self.contacts.iter().filter(move |(member, _)| far(member)).map(|(_, known)| {
                (&known.addresses[known.tries.failures as usize % known.addresses.len()], &known.tries)
            });
        let ready = given.chain(known).filter(move |(_, tries)| tries.not_before <= now);
        ready.map(|(address, _)| address).filter(move |address| !is_dialling(address))
    }

    /// When the next address may be dialled that may not be dialled yet.
    pub(crate) fn next_try(&self, now: Duration) -> Option<Duration> {
        let tries = self.given.values().chain(self.contacts.values().map(|known| &known.tries));
        tries.map(|tries| tries.not_before).filter(|at| *at > now).min()
    }

    /// Nobody could be reached there, or who was there did not want us.
    pub(crate) fn failed(&mut self, address: &Address, now: Duration, wait: Option<Duration>, config: &Config) {
        let fail = |tries: &mut Tries| {
            let doubled = config.dial_wait * 2_u32.saturating_pow(tries.failures.min(10));
            tries.fail(now, wait.unwrap_or_else(|| doubled.min(config.dial_wait_max)));
        };
        if let Some(tries) = self.given.get_mut(address) {
            fail(tries);
        }
        for known in self.contacts.values_mut().filter(|known| known.addresses.contains(address)) {
            fail(&mut known.tries);
        }
    }

    /// Somebody answered there, maybe this replica itself.
    pub(crate) fn reached(&mut self, address: &Address, member: Member) {
        if let Some(tries) = self.given.get_mut(address) {
            *tries = Tries { found: Some(member), ..Tries::default() };
        }
        let there = |known: &Known| known.addresses.contains(address);
        self.contacts.retain(|known_as, known| *known_as == member || !there(known));
        if let Some(known) = self.contacts.get_mut(&member) {
            known.tries = Tries::default();
        }
    }

    /// A neighbour is gone: whoever is at its address by now may be somebody else.
    pub(crate) fn left(&mut self, member: Member) {
        for tries in self.given.values_mut().filter(|tries| tries.found == Some(member)) {
            tries.found = None;
        }
    }

    /// At most so many whose last dial did not fail.
    pub(crate) fn sample(&self, count: usize, random: &mut Random) -> Vec<Contact> {
        let good = self.contacts.iter().filter(|(_, known)| known.tries.failures == 0);
        let good = good.map(|(member, known)| Contact { member: *member, addresses: known.addresses.clone() });
        random.some_of(good.collect(), count)
    }

    /// Tries everything again at once: the network is another one.
    pub(crate) fn forgive(&mut self) {
        let tries = self.given.values_mut().chain(self.contacts.values_mut().map(|known| &mut known.tries));
        tries.for_each(|tries| tries.not_before = Duration::ZERO);
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.contacts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn contact(number: u8) -> Contact {
        let address = Address::new(&format!("ws://10.0.0.{number}:1")).expect("short");
        Contact { member: Member([number; 16]), addresses: vec![address] }
    }

    fn candidates(views: &Views, now: Duration) -> Vec<Address> {
        views.candidates(now, |_| false, |_| false).cloned().collect()
    }

    #[test]
    fn who_cannot_be_dialled_waits_longer_each_time_and_goes_first() {
        let (config, mut random) = (Config { contacts_max: 3, ..Config::default() }, Random::new([1; 32]));
        let mut views = Views::new(Member([0; 16]));
        (1..=3).for_each(|number| views.learn(contact(number), &config, &mut random));
        let dead = contact(2).addresses[0].clone();
        views.failed(&dead, SECOND, None, &config);
        assert_eq!(candidates(&views, SECOND).len(), 2);
        assert_eq!(candidates(&views, 2 * SECOND).len(), 3);
        views.failed(&dead, 2 * SECOND, None, &config);
        assert_eq!(candidates(&views, 3 * SECOND).len(), 2, "it waits for two seconds by now");
        views.learn(contact(4), &config, &mut random);
        assert!(!candidates(&views, 100 * SECOND).contains(&dead), "it made room");
        assert_eq!(views.len(), 3);
    }

    #[test]
    fn whoever_comes_back_under_a_new_name_replaces_the_old_one() {
        let (config, mut random) = (Config::default(), Random::new([1; 32]));
        let mut views = Views::new(Member([0; 16]));
        views.learn(contact(1), &config, &mut random);
        views.learn(Contact { member: Member([9; 16]), ..contact(1) }, &config, &mut random);
        assert_eq!(views.sample(9, &mut random), [Contact { member: Member([9; 16]), ..contact(1) }]);
    }

    #[test]
    fn a_given_address_at_which_this_replica_itself_answers_is_left_alone() {
        let mut views = Views::new(Member([7; 16]));
        let own = contact(7).addresses[0].clone();
        views.give(own.clone());
        assert_eq!(candidates(&views, SECOND), std::slice::from_ref(&own));
        views.reached(&own, Member([7; 16]));
        assert_eq!(candidates(&views, SECOND), []);
    }
}
