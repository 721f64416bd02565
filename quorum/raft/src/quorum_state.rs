//! The `quorum-state` file: which epoch this voter is in, and whom it follows or voted for.
//!
//! Must be on disk before anything is said or done in that epoch: a voter that forgets its vote votes
//! twice. The caller writes a temporary file, flushes it and renames it.

use alloc::format;
use alloc::string::{String, ToString};
use flowstone_types::{LeaderEpoch, NodeId, Uuid};
use serde_json::Value;

/// What the file holds. Version 1 of the file where `kraft.version` is 1, else version 0, which has no
/// directory ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuorumState {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Its leader; [`NodeId::NONE`] where it is not known.
    pub leader: NodeId,
    /// Whom this voter voted for; [`NodeId::NONE`] for nobody, or once the leader is known.
    pub voted: NodeId,
    /// The directory id of the one voted for.
    pub voted_directory: Uuid,
}

impl QuorumState {
    /// Reads the file. An empty one is none: Kafka's own guard for a crash at creation.
    pub fn parse(text: &str) -> Result<Option<Self>, QuorumStateError> {
        if text.trim().is_empty() {
            return Ok(None);
        }
        let json: Value = serde_json::from_str(text)
            .map_err(|error| QuorumStateError::Json(error.to_string()))?;
        let number = |key: &'static str| {
            let number = json.get(key).and_then(Value::as_i64);
            number.and_then(|n| i32::try_from(n).ok()).ok_or(QuorumStateError::Missing(key))
        };
        match number("data_version")? {
            0 | 1 => {}
            version => return Err(QuorumStateError::Version(version)),
        }
        let directory = match json.get("votedDirectoryId") {
            None => Uuid::ZERO,
            Some(id) => {
                let parsed = id.as_str().and_then(|id| id.parse().ok());
                parsed.ok_or(QuorumStateError::Missing("votedDirectoryId"))?
            }
        };
        Ok(Some(Self {
            epoch: LeaderEpoch(number("leaderEpoch")?),
            leader: NodeId(number("leaderId")?),
            voted: NodeId(number("votedId")?),
            voted_directory: directory,
        }))
    }

    /// The file's one line. `voters` are told in version 0 only.
    pub fn to_text(&self, kraft_version: i16, voters: &[NodeId]) -> String {
        let Self { epoch, leader, voted, voted_directory } = self;
        if kraft_version >= 1 {
            return format!(
                r#"{{"leaderId":{leader},"leaderEpoch":{epoch},"votedId":{voted},"votedDirectoryId":"{voted_directory}","data_version":1}}"#
            );
        }
        let voters: alloc::vec::Vec<_> =
            voters.iter().map(|id| format!(r#"{{"voterId":{id}}}"#)).collect();
        format!(
            r#"{{"clusterId":"","leaderId":{leader},"leaderEpoch":{epoch},"votedId":{voted},"appliedOffset":0,"currentVoters":[{voters}],"data_version":0}}"#,
            voters = voters.join(",")
        )
    }
}

/// A file that is no `quorum-state`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuorumStateError {
    /// It is not JSON.
    #[error("quorum-state is not JSON: {0}")]
    Json(String),
    /// A field is missing, or not what it should be.
    #[error("quorum-state has no usable {0}")]
    Missing(&'static str),
    /// A newer release wrote it.
    #[error("quorum-state has unknown version {0}")]
    Version(i32),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Apache Kafka 4.3.1 left it: leader of epoch 1, kraft.version 1.
    const APACHE: &str = r#"{"leaderId":1,"leaderEpoch":1,"votedId":-1,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA","data_version":1}"#;

    #[test]
    fn apaches_file_goes_there_and_back() {
        let state = QuorumState::parse(APACHE).unwrap().unwrap();
        assert_eq!((state.epoch, state.leader), (LeaderEpoch(1), NodeId(1)));
        assert_eq!(state.to_text(1, &[]), APACHE);
    }

    #[test]
    fn version_0_names_the_voters() {
        let state = QuorumState::parse(APACHE).unwrap().unwrap();
        let text = state.to_text(0, &[NodeId(1), NodeId(2)]);
        assert!(text.contains(r#""currentVoters":[{"voterId":1},{"voterId":2}],"data_version":0"#));
        assert_eq!(QuorumState::parse(&text), Ok(Some(state)));
    }

    #[test]
    fn damaged_files_are_refused() {
        assert_eq!(QuorumState::parse(" \n"), Ok(None));
        assert!(matches!(QuorumState::parse("{"), Err(QuorumStateError::Json(_))));
        assert_eq!(QuorumState::parse("{}"), Err(QuorumStateError::Missing("data_version")));
        let newer = APACHE.replace("version\":1", "version\":2");
        assert_eq!(QuorumState::parse(&newer), Err(QuorumStateError::Version(2)));
        let huge = APACHE.replace("\"leaderEpoch\":1", "\"leaderEpoch\":4294967296");
        assert_eq!(QuorumState::parse(&huge), Err(QuorumStateError::Missing("leaderEpoch")));
    }
}
