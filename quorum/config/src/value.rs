//! Types, ranges and values: what a key's text must look like, and what it becomes.
//!
//! A text is checked once, where it comes in; reading a checked text cannot fail.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A key's type; as a number, that of `DescribeConfigs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i8)]
#[expect(missing_docs, reason = "the names are Kafka's and say it all")]
pub enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
    Class = 8,
    Password = 9,
}

impl Kind {
    pub(crate) fn check(self, text: &str) -> Result<(), String> {
        let text = text.trim();
        let right = match self {
            Self::Boolean if bool::parse(text).is_none() => {
                return Err("Expected value to be either true or false".to_owned());
            }
            Self::Int => i32::parse(text).is_some(),
            Self::Short => i16::parse(text).is_some(),
            Self::Long => i64::parse(text).is_some(),
            Self::Double => f64::parse(text).is_some(),
            Self::List => {
                let List(mut items) = List::of_text(text);
                items.sort_unstable();
                let twice = items.iter().zip(items.iter().skip(1)).find(|(a, b)| a == b);
                if let Some((twice, _)) = twice {
                    return Err(format!("The list has {twice} twice"));
                }
                true
            }
            Self::Boolean | Self::String | Self::Class | Self::Password => true,
        };
        if right { Ok(()) } else { Err(format!("Not a number of type {self}")) }
    }

    /// A checked text as `DescribeConfigs` shows it: without blanks between a list's parts, without
    /// a number's plus sign.
    pub(crate) fn shown(self, text: &str) -> String {
        let text = text.trim();
        match self {
            Self::Boolean => text.to_lowercase(),
            Self::Int | Self::Short | Self::Long => {
                text.strip_prefix('+').unwrap_or(text).to_owned()
            }
            Self::List => List::of_text(text).0.join(","),
            Self::String | Self::Double | Self::Class | Self::Password => text.to_owned(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Short => "SHORT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
            Self::Class => "CLASS",
            Self::Password => "PASSWORD",
        })
    }
}

/// Which values a key takes, beyond its type.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Range {
    /// All of its type.
    Any,
    /// From here on.
    AtLeast(i64),
    /// From here to there, both included.
    Between(i64, i64),
    /// From here to there, both included.
    Real(f64, f64),
    /// -1, or from here to there.
    MinusOneOr(i64, i64),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// One of these, in whatever case.
    OneOfIgnoringCase(&'static [&'static str]),
    /// A list of some of these.
    EachOf(&'static [&'static str]),
    /// Not empty.
    NonEmpty,
    /// `*`, or a list of `partition:broker`.
    ThrottledReplicas,
    /// `earliest`, `latest`, or `by_duration:` and a duration.
    OffsetReset,
    /// A list of what a client says of itself, `=` and a regular expression (KIP-714).
    ClientMatch,
}

pub(crate) const ANY: Range = Range::Any;
pub(crate) const NON_EMPTY: Range = Range::NonEmpty;
pub(crate) const GZIP_LEVEL: Range = Range::MinusOneOr(1, 9);
pub(crate) const THROTTLED: Range = Range::ThrottledReplicas;
pub(crate) const OFFSET_RESET: Range = Range::OffsetReset;
pub(crate) const CLIENT_MATCH: Range = Range::ClientMatch;

pub(crate) const fn at_least(low: i64) -> Range {
    Range::AtLeast(low)
}

pub(crate) const fn between(low: i64, high: i64) -> Range {
    Range::Between(low, high)
}

pub(crate) const fn real(low: f64, high: f64) -> Range {
    Range::Real(low, high)
}

impl Range {
    /// Checks a text that is of the key's type.
    pub(crate) fn check(self, text: &str) -> Result<(), String> {
        let text = text.trim();
        let whole = || i64::parse(text).unwrap_or_default();
        match self {
            Self::MinusOneOr(..) if whole() == -1 => Ok(()),
            Self::AtLeast(low) | Self::Between(low, _) | Self::MinusOneOr(low, _)
                if whole() < low =>
            {
                Err(format!("Value must be at least {low}"))
            }
            Self::Between(_, high) | Self::MinusOneOr(_, high) if whole() > high => {
                Err(format!("Value must be no more than {high}"))
            }
            Self::Real(low, high) => match f64::parse(text) {
                Some(value) if value < low => Err(format!("Value must be at least {low}")),
                Some(value) if value > high => Err(format!("Value must be no more than {high}")),
                Some(_) | None => Ok(()),
            },
            Self::OneOf(names) if names.contains(&text) => Ok(()),
            Self::OneOfIgnoringCase(names)
                if names.iter().any(|n| n.eq_ignore_ascii_case(text)) =>
            {
                Ok(())
            }
            Self::OneOf(names) | Self::OneOfIgnoringCase(names) => {
                Err(format!("String must be one of: {}", names.join(", ")))
            }
            Self::EachOf(names) => {
                let List(items) = List::of_text(text);
                match items.iter().find(|item| !names.contains(&item.as_str())) {
                    Some(_) => Err(format!("String must be one of: {}", names.join(", "))),
                    None => Ok(()),
                }
            }
            Self::NonEmpty if text.is_empty() => Err("String must be non-empty".to_owned()),
            Self::Any
            | Self::AtLeast(_)
            | Self::Between(..)
            | Self::MinusOneOr(..)
            | Self::NonEmpty => Ok(()),
            Self::ThrottledReplicas => {
                let is_pair = |item: &String| {
                    item.split_once(':').is_some_and(|(partition, broker)| {
                        i32::parse(partition).is_some() && i32::parse(broker).is_some()
                    })
                };
                let right = text == "*" || List::of_text(text).0.iter().all(is_pair);
                right.then_some(()).ok_or_else(|| {
                    "Must be the literal '*' or a list of partition:broker".to_owned()
                })
            }
            Self::OffsetReset => {
                let right = matches!(text, "earliest" | "latest")
                    || text.strip_prefix("by_duration:").is_some_and(is_duration);
                right.then_some(()).ok_or_else(|| {
                    "Must be earliest, latest, or by_duration: and a duration such as PT1H"
                        .to_owned()
                })
            }
            Self::ClientMatch => {
                let List(items) = List::of_text(text);
                match items.iter().find(|item| !is_client_match(item)) {
                    Some(item) => Err(format!("Illegal client matching pattern: {item}")),
                    None => Ok(()),
                }
            }
        }
    }
}

/// What a client says of itself that a subscription can match (KIP-714).
const CLIENT_SAYS: [&str; 6] = [
    "client_id",
    "client_instance_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// `name=regular expression`, with one `=`. Which names of Unicode classes there are, is not asked.
fn is_client_match(text: &str) -> bool {
    let Some((name, pattern)) = text.split_once('=') else { return false };
    let pattern = pattern.trim();
    CLIENT_SAYS.contains(&name.trim())
        && !pattern.is_empty()
        && !pattern.contains('=')
        && regex_syntax::ast::parse::Parser::new().parse(pattern).is_ok()
}

impl fmt::Display for Range {
    /// As in Kafka's reference: `[1,...]`, `[delete, compact]`; empty where anything goes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::AtLeast(low) => write!(f, "[{low},...]"),
            Self::Between(low, high) => write!(f, "[{low},...,{high}]"),
            Self::Real(low, high) => write!(f, "[{low},...,{high}]"),
            Self::MinusOneOr(low, high) => write!(f, "[{low},...,{high}] or -1"),
            Self::OneOf(names) | Self::OneOfIgnoringCase(names) | Self::EachOf(names) => {
                write!(f, "[{}]", names.join(", "))
            }
            Self::NonEmpty => f.write_str("non-empty"),
            Self::ThrottledReplicas => f.write_str("* or partition:broker,..."),
            Self::OffsetReset => f.write_str("earliest, latest, by_duration:PnDTnHnMn.nS"),
            Self::ClientMatch => f.write_str("name=regular expression,..."),
        }
    }
}

/// ISO 8601 as Java's `Duration` reads it, not negative: `PnDTnHnMn.nS`, each part once, in order.
fn is_duration(text: &str) -> bool {
    let Some(text) = text.strip_prefix('P') else { return false };
    let (days, time) = text.split_once('T').map_or((text, None), |(days, time)| (days, Some(time)));
    let days_right = days.is_empty() || parts_in_order(days, "D");
    let time_right = time.is_none_or(|time| parts_in_order(time, "HMS"));
    days_right && time_right && (!days.is_empty() || time.is_some())
}

/// Whether `text` is numbers, each with one of `units`, which come in this order and once.
fn parts_in_order(mut text: &str, mut units: &str) -> bool {
    if text.is_empty() {
        return false;
    }
    while !text.is_empty() {
        let Some(end) = text.find(|c: char| !c.is_ascii_digit() && c != '.') else { return false };
        let (number, rest) = text.split_at(end);
        let unit = &rest[..rest.chars().next().map_or(0, char::len_utf8)];
        let Some(at) = units.find(unit) else { return false };
        let is_number =
            if unit == "S" { f64::parse(number).is_some() } else { i64::parse(number).is_some() };
        if !is_number {
            return false;
        }
        units = &units[at + unit.len()..];
        text = &rest[unit.len()..];
    }
    true
}

/// What a key's text becomes.
pub trait Value: Sized {
    /// The type of keys with such values.
    const KIND: Kind;

    /// Reads a trimmed text; `None` if it is not of this type.
    fn parse(text: &str) -> Option<Self>;

    /// Reads the text of the key `name`, which was checked when it came in.
    fn of(name: &str, text: Option<&str>) -> Self {
        let text = text.unwrap_or_else(|| panic!("{name} is required or has a default"));
        Self::parse(text.trim())
            .unwrap_or_else(|| panic!("{name} was checked to be {}", Self::KIND))
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Boolean;

    fn parse(text: &str) -> Option<Self> {
        let is = |word: &str| text.eq_ignore_ascii_case(word);
        if is("true") { Some(true) } else { is("false").then_some(false) }
    }
}

macro_rules! numbers {
    ($($type:ty: $kind:ident),+) => { $(
        impl Value for $type {
            const KIND: Kind = Kind::$kind;

            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
    )+ };
}

numbers!(i16: Short, i32: Int, i64: Long);

impl Value for f64 {
    const KIND: Kind = Kind::Double;

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|value: &Self| !value.is_nan()) // In no range, and out of none.
    }
}

impl Value for String {
    const KIND: Kind = Kind::String;

    fn parse(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl<T: Value> Value for Option<T> {
    const KIND: Kind = T::KIND;

    fn parse(text: &str) -> Option<Self> {
        T::parse(text).map(Some)
    }

    fn of(name: &str, text: Option<&str>) -> Self {
        text.map(|text| T::of(name, Some(text)))
    }
}

/// A list, written with commas; parts are trimmed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct List(pub Vec<String>);

impl List {
    pub(crate) fn of_text(text: &str) -> Self {
        if text.trim().is_empty() {
            return Self::default();
        }
        Self(text.split(',').map(|item| item.trim().to_owned()).collect())
    }
}

impl Value for List {
    const KIND: Kind = Kind::List;

    fn parse(text: &str) -> Option<Self> {
        Some(Self::of_text(text))
    }
}

macro_rules! choices {
    ($( $(#[$about:meta])* $type:ident { $( $(#[$doc:meta])* $name:ident = $text:literal, )+ } )+) => { $(
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $type {
            $( $(#[$doc])* $name, )+
        }

        impl $type {
            /// The texts it is written as.
            pub const NAMES: &[&str] = &[$( $text ),+];

            /// The text it is written as.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $text, )+ }
            }
        }

        impl Value for $type {
            const KIND: Kind = Kind::String;

            fn parse(text: &str) -> Option<Self> {
                match text { $( $text => Some(Self::$name), )+ _ => None }
            }
        }
    )+ };
}

choices! {
    /// `compression.type`.
    CompressionType {
        /// No compression.
        Uncompressed = "uncompressed",
        /// Zstandard.
        Zstd = "zstd",
        /// LZ4, framed.
        Lz4 = "lz4",
        /// Snappy, in Xerial's framing.
        Snappy = "snappy",
        /// Gzip.
        Gzip = "gzip",
        /// As the producer sent it.
        Producer = "producer",
    }
    /// `message.timestamp.type`.
    TimestampType {
        /// The producer's time.
        CreateTime = "CreateTime",
        /// The broker's time.
        LogAppendTime = "LogAppendTime",
    }
    /// `flowstone.compressed.check`: what is looked at in a compressed batch.
    CompressedCheck {
        /// Every compressed batch is opened and its records checked, as Kafka does.
        Full = "full",
        /// Header, CRC and declared counts; opened only where the topic's configs need it.
        Header = "header",
    }
    /// `flowstone.durability`: when a write is acknowledged.
    Durability {
        /// When it is on stable storage.
        Flushed = "flushed",
        /// When it was written, which survives the process but not a power cut.
        Written = "written",
        /// When it is in memory, as Kafka does by default.
        Memory = "memory",
    }
    /// `flowstone.log.format`.
    LogFormat {
        /// Human on a terminal, JSON otherwise.
        Auto = "auto",
        /// For people.
        Human = "human",
        /// For machines.
        Json = "json",
    }
}

/// `cleanup.policy`: a set of two, and neither is also a choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanupPolicy {
    /// Whether old segments are deleted.
    pub delete: bool,
    /// Whether only the last record of each key is kept.
    pub compact: bool,
}

impl Value for CleanupPolicy {
    const KIND: Kind = Kind::List;

    fn parse(text: &str) -> Option<Self> {
        let List(items) = List::of_text(text);
        let has = |name: &str| items.iter().any(|item| item == name);
        Some(Self { delete: has("delete"), compact: has("compact") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_as_kafka_checks_them() {
        for (kind, good, bad) in [
            (Kind::Boolean, &["true", "FALSE", " true "][..], &["yes", "", "1"][..]),
            (Kind::Int, &["1", "-5", "+7", " 3 "], &["1.0", "2147483648", "", "0x1"]),
            (Kind::Short, &["-32768"], &["32768"]),
            (Kind::Long, &["9223372036854775807"], &["9223372036854775808"]),
            (Kind::Double, &["0.5", "1.7976931348623157E308"], &["half", "NaN"]),
            (Kind::List, &["", "a,b"], &["a, b,a"]),
        ] {
            for text in good {
                assert_eq!(kind.check(text), Ok(()), "{kind} {text}");
            }
            for text in bad {
                assert!(kind.check(text).is_err(), "{kind} {text}");
            }
        }
    }

    #[test]
    fn ranges_are_checked_as_kafka_checks_them() {
        for (range, good, bad) in [
            (at_least(1), &["1", "99"][..], &["0", "-1"][..]),
            (between(1, 17), &["1", "17"], &["0", "18"]),
            (real(0.0, 1.0), &["0", "0.5", "1"], &["-0.1", "1.1"]),
            (GZIP_LEVEL, &["-1", "1", "9"], &["0", "10", "-2"]),
            (Range::OneOf(&["a", "b"]), &["a", " b"], &["A", ""]),
            (Range::OneOfIgnoringCase(&["UP"]), &["up"], &["down"]),
            (Range::EachOf(&["delete", "compact"]), &["", "delete", "compact, delete"], &["x"]),
            (NON_EMPTY, &["a"], &[" "]),
            (THROTTLED, &["*", "", "0:1,1:2"], &["0", "a:b", "*,0:1"]),
            (
                OFFSET_RESET,
                &["earliest", "latest", "by_duration:P1D", "by_duration:PT1H30.5S"],
                &[
                    "none",
                    "by_duration:",
                    "by_duration:P",
                    "by_duration:PT",
                    "by_duration:1H",
                    "by_duration:PT1S1H",
                ],
            ),
        ] {
            for text in good {
                assert_eq!(range.check(text), Ok(()), "{range:?} {text}");
            }
            for text in bad {
                assert!(range.check(text).is_err(), "{range:?} {text}");
            }
        }
    }

    #[test]
    fn choices_are_their_names() {
        for name in CompressionType::NAMES {
            assert_eq!(CompressionType::parse(name).map(CompressionType::name), Some(*name));
        }
        let policy = CleanupPolicy::parse("compact, delete");
        assert_eq!(policy, Some(CleanupPolicy { delete: true, compact: true }));
        assert_eq!(CleanupPolicy::parse(""), Some(CleanupPolicy { delete: false, compact: false }));
    }
}
