//! Which addresses a name has answered for one program. Beyond the life of the answer, nothing is left of it.

use std::{collections::HashMap, time::Duration};

use ::core::net::IpAddr;

use super::HostName;

/// An answer lives at least, and at most, for this long, whatever its server says: what lives for no moment could not be
/// connected to, and what lives for ever would outlive its host.
pub const TTL_MIN: Duration = Duration::from_secs(5);
pub const TTL_MAX: Duration = Duration::from_secs(3_600);
/// After the end of its life, for a connect that was under way.
pub const GRACE: Duration = Duration::from_secs(10);
/// Pairs of an address and a name, of one program. One more is not answered.
pub const PINS_MAX: usize = 4_096;

#[derive(Clone, Debug)]
struct Pin {
    name: HostName,
    until: Duration,
}

/// Of one program.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    pins: HashMap<IpAddr, Vec<Pin>>,
    count: usize,
}

/// There is no place for another answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Pins {
    /// Enters an answer; for how long it is told to live. `now` counts from any moment and does not go back.
    pub fn add(
        &mut self,
        name: &HostName,
        addresses: &[IpAddr],
        ttl: Duration,
        now: Duration,
    ) -> Result<Duration, Full> {
        if self.count.saturating_add(addresses.len()) > PINS_MAX {
            self.forget(now);
        }
        let ttl = ttl.clamp(TTL_MIN, TTL_MAX);
        let until = now.saturating_add(ttl).saturating_add(GRACE);
        for ip in addresses {
            let known = self.pins.get_mut(ip).and_then(|pins| pins.iter_mut().find(|pin| pin.name == *name));
            match known {
                // A shorter life that is told later takes nothing back: the longer one was told to the program.
                Some(pin) => pin.until = pin.until.max(until),
                None if self.count >= PINS_MAX => return Err(Full),
                None => {
                    self.pins.entry(*ip).or_default().push(Pin { name: name.clone(), until });
                    self.count += 1;
                }
            }
        }
        Ok(ttl)
    }

    /// Names that have answered this address and live.
    pub fn names(&self, ip: IpAddr, now: Duration) -> impl Iterator<Item = &HostName> {
        let pins = self.pins.get(&ip).map(Vec::as_slice).unwrap_or_default();
        pins.iter().filter(move |pin| now < pin.until).map(|pin| &pin.name)
    }

    fn forget(&mut self, now: Duration) {
        self.pins.retain(|_, pins| {
            pins.retain(|pin| now < pin.until);
            !pins.is_empty()
        });
        self.count = self.pins.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_000);

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn names(pins: &Pins, at: u32, now: Duration) -> Vec<String> {
        pins.names(ip(at), now).map(ToString::to_string).collect()
    }

    #[test]
    fn an_address_lives_as_long_as_its_answer_and_a_moment_longer() {
        let mut pins = Pins::default();
        let ttl = Duration::from_secs(60);
        assert_eq!(pins.add(&name("a.example"), &[ip(1), ip(2)], ttl, START), Ok(ttl));
        let end = START + ttl + GRACE;
        for now in [START, START + ttl, end - Duration::from_nanos(1)] {
            assert_eq!(names(&pins, 1, now), ["a.example"]);
            assert_eq!(names(&pins, 2, now), ["a.example"]);
        }
        assert!(names(&pins, 1, end).is_empty());
        assert!(names(&pins, 3, START).is_empty());
        // Another name for the same address has a life of its own.
        pins.add(&name("b.example"), &[ip(1)], ttl * 2, START).unwrap();
        assert_eq!(names(&pins, 1, START), ["a.example", "b.example"]);
        assert_eq!(names(&pins, 1, end), ["b.example"]);
        // An answer that comes again renews it; a shorter one takes nothing back.
        pins.add(&name("b.example"), &[ip(1)], TTL_MIN, START).unwrap();
        assert_eq!(names(&pins, 1, end), ["b.example"]);
        pins.add(&name("a.example"), &[ip(1)], ttl, end).unwrap();
        assert_eq!(names(&pins, 1, end).len(), 2);
    }

    #[test]
    fn a_life_is_neither_a_moment_nor_for_ever() {
        let told = |ttl| Pins::default().add(&name("a.example"), &[ip(1)], ttl, START);
        assert_eq!(told(Duration::ZERO), Ok(TTL_MIN));
        assert_eq!(told(TTL_MIN + Duration::from_secs(1)), Ok(TTL_MIN + Duration::from_secs(1)));
        assert_eq!(told(TTL_MAX), Ok(TTL_MAX));
        assert_eq!(told(TTL_MAX + Duration::from_secs(1)), Ok(TTL_MAX));
        assert_eq!(told(Duration::MAX), Ok(TTL_MAX));
    }

    #[test]
    fn no_more_is_kept_than_there_is_place_for_and_what_has_ended_gives_its_own() {
        let mut pins = Pins::default();
        let all: Vec<IpAddr> = (0..u32::try_from(PINS_MAX).unwrap()).map(ip).collect();
        assert!(pins.add(&name("a.example"), &all, TTL_MIN, START).is_ok());
        assert_eq!(pins.add(&name("b.example"), &[ip(1)], TTL_MIN, START), Err(Full));
        // What is there is renewed.
        assert!(pins.add(&name("a.example"), &[ip(1)], TTL_MIN, START).is_ok());
        let end = START + TTL_MIN + GRACE;
        assert!(pins.add(&name("b.example"), &[ip(1)], TTL_MIN, end).is_ok());
        assert_eq!(pins.count, 1);
    }
}
