//! What can go wrong, each with the exit status that scripts may rely on.
//!
//! Separate so that statuses are decided in one place, and so that each message says what is wrong,
//! where, and what to do.

use flowstone_wire::ErrorCode;

/// An error with an exit status of its own; any other error ends with [`FAILED`].
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Options that clap could not know to be wrong.
    #[error("{0}")]
    Usage(String),
    /// No connection, a lost one, or no answer in time.
    #[error(
        "{address} cannot be reached: {cause}\n\
         Is a broker running there? Name another with -b HOST:PORT or FLOWSTONE_BOOTSTRAP."
    )]
    Unreachable {
        /// The broker, as host:port.
        address: String,
        /// What happened.
        cause: String,
    },
    /// The broker said no.
    #[error("{}", refusal(.what, *.code, .message.as_deref()))]
    Refused {
        /// What was asked, such as `topic orders`.
        what: String,
        /// Kafka's error code.
        code: i16,
        /// The broker's own words.
        message: Option<String>,
    },
    /// The broker does not speak the API, or no version of it that we do.
    #[error(
        "{address} has no {api} in a version this tool speaks; `flowstone cluster api-versions` lists what it has"
    )]
    Unsupported {
        /// The broker, as host:port.
        address: String,
        /// The request's name.
        api: &'static str,
    },
    /// Files that are not whole.
    #[error("{0}")]
    Damaged(String),
}

/// Exit status of an error without one of its own.
pub const FAILED: u8 = 1;

/// The end of `flowstone --help`.
pub const EXIT_CODES: &str = "\
Exit status:
  0  done
  1  failed
  2  wrong usage
  3  the broker cannot be reached
  4  the broker refused: the message has Kafka's error code
  5  files are damaged (log dump)";

impl Failure {
    /// The exit status.
    pub const fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::Refused { .. } | Self::Unsupported { .. } => 4,
            Self::Damaged(_) => 5,
        }
    }

    /// Whether the same request may succeed in a moment.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused { code, .. } => {
                ErrorCode::from_number(*code).is_some_and(ErrorCode::is_retriable)
            }
            Self::Unreachable { .. } => true,
            Self::Usage(_) | Self::Unsupported { .. } | Self::Damaged(_) => false,
        }
    }

    /// Whether the broker answered with `code`.
    pub fn is(&self, wanted: ErrorCode) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted as i16)
    }
}

/// `Ok` for code 0, else the refusal of `what`.
pub fn check(
    what: impl FnOnce() -> String,
    code: i16,
    message: Option<&str>,
) -> Result<(), Failure> {
    if code == ErrorCode::None as i16 {
        return Ok(());
    }
    Err(Failure::Refused { what: what(), code, message: message.map(str::to_owned) })
}

/// Kafka's name of a code.
pub fn code_name(code: i16) -> String {
    ErrorCode::from_number(code).map_or_else(|| format!("ERROR_{code}"), |code| code.to_string())
}

fn refusal(what: &str, code: i16, message: Option<&str>) -> String {
    let known = ErrorCode::from_number(code);
    let words = message
        .filter(|text| !text.is_empty())
        .or(known.map(ErrorCode::message))
        .unwrap_or("an error code that this tool does not know");
    let advice = known.and_then(advice).map(|advice| format!("\n{advice}")).unwrap_or_default();
    format!("{what}: {}: {words}{advice}", code_name(code))
}

/// What to do about the errors that people meet.
fn advice(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::UnknownTopicOrPartition => {
            "`flowstone topics list` shows which topics there are; `flowstone topics create` makes one."
        }
        ErrorCode::TopicAlreadyExists => "Use --if-not-exists where that is fine.",
        ErrorCode::NonEmptyGroup => {
            "Stop the group's consumers first; `flowstone groups describe` shows them."
        }
        ErrorCode::GroupIdNotFound => "`flowstone groups list` shows which groups there are.",
        ErrorCode::NotEnoughReplicas | ErrorCode::NotEnoughReplicasAfterAppend => {
            "Fewer replicas are in sync than min.insync.replicas asks for: `flowstone topics describe` shows them."
        }
        ErrorCode::MessageTooLarge => {
            "Send smaller batches, or raise max.message.bytes of the topic (`flowstone configs set`)."
        }
        ErrorCode::InvalidReplicationFactor => {
            "There are fewer brokers than that: see `flowstone cluster brokers`."
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_where_and_what_to_do() {
        let refused = check(|| "topic a".to_owned(), 3, None).unwrap_err();
        let text = refused.to_string();
        assert!(text.starts_with("topic a: UNKNOWN_TOPIC_OR_PARTITION: "), "{text}");
        assert!(text.contains("topics list"));
        assert_eq!((refused.status(), refused.may_pass()), (4, true));
        let own = check(|| "topic a".to_owned(), 37, Some("Topic has 3")).unwrap_err();
        assert_eq!(own.to_string(), "topic a: INVALID_PARTITIONS: Topic has 3");
        assert!(!own.may_pass() && own.is(ErrorCode::InvalidPartitions));
        assert!(check(|| unreachable!(), 0, None).is_ok());
        assert!(check(String::new, 999, None).unwrap_err().to_string().contains("ERROR_999"));
    }

    #[test]
    fn each_status_is_documented() {
        let unreachable = Failure::Unreachable { address: String::new(), cause: String::new() };
        for failure in [Failure::Usage(String::new()), unreachable, Failure::Damaged(String::new())]
        {
            assert!(EXIT_CODES.contains(&format!("\n  {}  ", failure.status())));
        }
    }
}
