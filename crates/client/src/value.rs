//! Field types that mean the same in Rust and in JavaScript.
//!
//! Owns: what each reads, what it writes, and which values it refuses. Must not: know a document; autosurgeon does.
//! Next: `typed.rs`; docs/client.md, "Types between Rust and JavaScript".

mod blob;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use autosurgeon::reconcile::{CounterReconciler, NoKey, TextReconciler};
use autosurgeon::{Hydrate, HydrateError, ReadDoc, Reconcile, Reconciler};

pub use blob::Blob;

/// The largest whole number that JavaScript's numbers hold exactly, 2⁵³ − 1.
pub const INTEGER_MAX: i64 = (1 << 53) - 1;

/// Text that several people edit, which every plain string of JavaScript is.
///
/// Reads collaborative text and plain strings. Writing it back makes the smallest edit that leads from what is there to
/// what is wanted, so that two people's edits of one text both stay. A plain string that is changed becomes text.
///
/// ```
/// use syncline::value::Text;
/// let mut body = Text::from("Dear");
/// body.push_str(" reader");
/// assert_eq!(body, "Dear reader");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(pub String);

impl Deref for Text {
    type Target = String;

    fn deref(&self) -> &String {
        &self.0
    }
}

impl DerefMut for Text {
    fn deref_mut(&mut self) -> &mut String {
        &mut self.0
    }
}

impl<S: Into<String>> From<S> for Text {
    fn from(text: S) -> Self {
        Self(text.into())
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Hydrate for Text {
    fn hydrate_text<D: ReadDoc>(document: &D, object: &automerge::ObjId) -> Result<Self, HydrateError> {
        Ok(Self(document.text(object)?))
    }

    fn hydrate_string(string: &str) -> Result<Self, HydrateError> {
        Ok(Self(string.to_owned()))
    }
}

impl Reconcile for Text {
    type Key<'a> = NoKey;

    fn reconcile<R: Reconciler>(&self, mut reconciler: R) -> Result<(), R::Error> {
        reconciler.text()?.update(&self.0)
    }
}

/// A number that is added to: increments of several people all count. JavaScript's `Counter`.
///
/// ```
/// use syncline::value::Counter;
/// let mut votes = Counter::new(3);
/// votes.add(2);
/// assert_eq!(votes.value(), 5);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Counter {
    /// What the document has; `None` for a counter that is not in one.
    stored: Option<i64>,
    added: i64,
}

impl Counter {
    /// A counter that begins here.
    #[must_use]
    pub fn new(value: i64) -> Self {
        Self { stored: None, added: value }
    }

    /// Adds to it; a negative number takes away.
    pub fn add(&mut self, by: i64) {
        self.added = self.added.saturating_add(by);
    }

    /// What it stands at.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.stored.unwrap_or(0).saturating_add(self.added)
    }
}

impl PartialEq for Counter {
    fn eq(&self, other: &Self) -> bool {
        self.value() == other.value()
    }
}

impl Hydrate for Counter {
    fn hydrate_counter(value: i64) -> Result<Self, HydrateError> {
        Ok(Self { stored: Some(value), added: 0 })
    }
}

impl Reconcile for Counter {
    type Key<'a> = NoKey;

    fn reconcile<R: Reconciler>(&self, mut reconciler: R) -> Result<(), R::Error> {
        match (self.stored, self.added) {
            (None, value) => reconciler.counter()?.set(value),
            // An increment of nothing would be a change of its own.
            (Some(_), 0) => Ok(()),
            (Some(_), by) => reconciler.counter()?.increment(by),
        }
    }
}

/// A whole number that JavaScript's numbers hold exactly: at most 2⁵³ − 1 either way.
///
/// Reads any stored number that is whole and within these bounds, also one that JavaScript stored as a float.
///
/// ```
/// use syncline::value::Integer;
/// let year = Integer::from(1985);
/// assert_eq!(year.get(), 1985);
/// assert!(Integer::try_from(u64::MAX).is_err());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Integer(i64);

/// A number that JavaScript would not read as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is beyond 2^53 - 1, so that JavaScript would read another number")]
pub struct TooLarge(String);

impl Integer {
    /// The number.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }

    fn read(number: impl TryInto<i64> + fmt::Display + Copy) -> Result<Self, HydrateError> {
        let exact = number.try_into().ok().filter(|value: &i64| (-INTEGER_MAX..=INTEGER_MAX).contains(value));
        let wanted = "a whole number of at most 2^53 - 1";
        exact.map(Self).ok_or_else(|| HydrateError::unexpected(wanted, number.to_string()))
    }
}

impl From<i32> for Integer {
    fn from(value: i32) -> Self {
        Self(value.into())
    }
}

impl From<u32> for Integer {
    fn from(value: u32) -> Self {
        Self(value.into())
    }
}

impl TryFrom<i64> for Integer {
    type Error = TooLarge;

    fn try_from(value: i64) -> Result<Self, TooLarge> {
        Self::read(value).map_err(|_| TooLarge(value.to_string()))
    }
}

impl TryFrom<u64> for Integer {
    type Error = TooLarge;

    fn try_from(value: u64) -> Result<Self, TooLarge> {
        Self::read(value).map_err(|_| TooLarge(value.to_string()))
    }
}

impl Hydrate for Integer {
    fn hydrate_int(value: i64) -> Result<Self, HydrateError> {
        Self::read(value)
    }

    fn hydrate_uint(value: u64) -> Result<Self, HydrateError> {
        Self::read(value)
    }

    fn hydrate_f64(value: f64) -> Result<Self, HydrateError> {
        if value.fract() == 0.0 && value.abs() <= INTEGER_MAX as f64 {
            return Ok(Self(value as i64));
        }
        Err(HydrateError::unexpected("a whole number of at most 2^53 - 1", value.to_string()))
    }
}

impl Reconcile for Integer {
    type Key<'a> = NoKey;

    fn reconcile<R: Reconciler>(&self, mut reconciler: R) -> Result<(), R::Error> {
        reconciler.i64(self.0)
    }
}

/// Any number, as JavaScript has them: a field that holds 1 on one day and 1.5 on the next.
///
/// Reads stored integers too, for JavaScript stores whole numbers as such; writes a float, which JavaScript reads as the
/// same number.
///
/// ```
/// use syncline::value::Number;
/// assert_eq!(Number::from(1.5).0, 1.5);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
pub struct Number(pub f64);

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self(value)
    }
}

impl Hydrate for Number {
    fn hydrate_f64(value: f64) -> Result<Self, HydrateError> {
        Ok(Self(value))
    }

    fn hydrate_int(value: i64) -> Result<Self, HydrateError> {
        Integer::hydrate_int(value).map(|value| Self(value.0 as f64))
    }

    fn hydrate_uint(value: u64) -> Result<Self, HydrateError> {
        Integer::hydrate_uint(value).map(|value| Self(value.0 as f64))
    }
}

impl Reconcile for Number {
    type Key<'a> = NoKey;

    fn reconcile<R: Reconciler>(&self, mut reconciler: R) -> Result<(), R::Error> {
        reconciler.f64(self.0)
    }
}

/// A moment, in whole milliseconds since the Unix epoch. JavaScript's `Date`.
///
/// ```
/// use std::time::SystemTime;
/// use syncline::value::Date;
/// let due = Date::from_millis(86_400_000);
/// assert_eq!(Date::from(SystemTime::from(due)), due);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(i64);

impl Date {
    /// The moment so many milliseconds after the Unix epoch; before it, if negative.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.0
    }

    /// This machine's present time.
    #[must_use]
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }
}

impl From<SystemTime> for Date {
    fn from(time: SystemTime) -> Self {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(millis(after)),
            Err(before) => Self(-millis(before.duration())),
        }
    }
}

impl From<Date> for SystemTime {
    fn from(date: Date) -> Self {
        let distance = Duration::from_millis(date.0.unsigned_abs());
        let time = if date.0 < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
        // Only a moment that the platform's clock cannot name ends up here.
        time.unwrap_or(UNIX_EPOCH)
    }
}

impl Hydrate for Date {
    fn hydrate_timestamp(millis: i64) -> Result<Self, HydrateError> {
        Ok(Self(millis))
    }
}

impl Reconcile for Date {
    type Key<'a> = NoKey;

    fn reconcile<R: Reconciler>(&self, mut reconciler: R) -> Result<(), R::Error> {
        reconciler.timestamp(self.0)
    }
}
