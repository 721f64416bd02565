//! What formatting a node leaves on its disks (`kafka-storage format`), as file contents.
//!
//! Separate because the tool writes them with the process's own files and `flowstoned dev` through the
//! runtime, in simulation too: both write what is decided here.

use crate::features::{self, FeatureError, KRAFT_VERSION, MetadataVersion};
use crate::log::LogError;
use crate::record::MetadataRecord;
use crate::snapshot_file;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bytes::Bytes;
use flowstone_log::{MetaProperties, names};
use flowstone_raft::SnapshotId;
use flowstone_raft::control::{KraftVersionRange, KraftVoter, KraftVoters, VoterEndpoint};
use flowstone_types::{NodeId, Timestamp, Uuid};

/// The file that tells a first controller which features the cluster starts with.
pub const BOOTSTRAP_CHECKPOINT: &str = "bootstrap.checkpoint";
/// The directory of the metadata log, within its log directory.
pub const METADATA_LOG_DIR: &str = "__cluster_metadata-0";

/// How a node is formatted.
#[derive(Clone, PartialEq, Debug)]
pub struct Format {
    /// The cluster's id.
    pub cluster_id: String,
    /// `node.id`.
    pub node_id: NodeId,
    /// The metadata.version that the cluster starts with.
    pub version: MetadataVersion,
    /// Features that are to start at another level than that version's default.
    pub features: Vec<(String, i16)>,
    /// This node as the only voter of a new quorum (`--standalone`); `None` where voters are
    /// configured (`controller.quorum.voters`), which is `kraft.version` 0.
    pub standalone: Option<Endpoint>,
    /// A fresh directory id for each log directory; the first one's is the metadata log's.
    pub directory_ids: Vec<Uuid>,
}

/// How the voter is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The controller listener's name.
    pub listener: String,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// A file to write: which log directory (an index into `directory_ids`), the path in it, the bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FormatFile {
    /// Index of the log directory.
    pub dir: usize,
    /// Path within it.
    pub path: String,
    /// Contents.
    pub bytes: Bytes,
}

/// A node that cannot be formatted so.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    /// A feature, or a level of it, is unknown.
    #[error(transparent)]
    Feature(#[from] FeatureError),
    /// The records could not be written.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Format {
    /// The files, in the order in which they are to be written: `meta.properties` last in each
    /// directory, since it is what makes the directory formatted.
    pub fn files(&self, now: Timestamp) -> Result<Vec<FormatFile>, FormatError> {
        let chosen: Vec<_> =
            self.features.iter().filter(|(name, _)| name != KRAFT_VERSION).cloned().collect();
        let records = features::bootstrap_records(self.version, &chosen)?;
        let records: Vec<MetadataRecord> = records.into_iter().map(Into::into).collect();
        let bootstrap = snapshot_file::bootstrap(records, now)?;
        let mut files = Vec::new();
        if let Some(endpoint) = &self.standalone {
            let path = alloc::format!("{METADATA_LOG_DIR}/{}", SnapshotId::BOOTSTRAP);
            let bytes = snapshot_file::first_voters(1, &self.voters(endpoint), now);
            files.push(FormatFile { dir: 0, path, bytes });
        }
        for (dir, directory_id) in self.directory_ids.iter().enumerate() {
            let meta = MetaProperties {
                cluster_id: self.cluster_id.clone(),
                node_id: self.node_id,
                directory_id: Some(*directory_id),
            };
            let path = BOOTSTRAP_CHECKPOINT.to_string();
            files.push(FormatFile { dir, path, bytes: bootstrap.clone() });
            let path = names::META_PROPERTIES.to_string();
            files.push(FormatFile { dir, path, bytes: meta.encode().into_bytes().into() });
        }
        Ok(files)
    }

    fn voters(&self, endpoint: &Endpoint) -> KraftVoters {
        let voter = KraftVoter {
            voter_id: self.node_id.0,
            voter_directory_id: self.directory_ids[0],
            endpoints: alloc::vec![VoterEndpoint {
                name: endpoint.listener.clone(),
                host: endpoint.host.clone(),
                port: endpoint.port,
                ..VoterEndpoint::default()
            }],
            kraft_version_feature: KraftVersionRange {
                min_supported_version: 0,
                max_supported_version: 1,
                ..KraftVersionRange::default()
            },
            ..KraftVoter::default()
        };
        KraftVoters { voters: alloc::vec![voter], ..KraftVoters::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format() -> Format {
        let endpoint = Endpoint { listener: "CONTROLLER".into(), host: "h".into(), port: 9093 };
        Format {
            cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".into(),
            node_id: NodeId(1),
            version: MetadataVersion::LATEST,
            features: Vec::new(),
            standalone: Some(endpoint),
            directory_ids: alloc::vec![Uuid(1 << 100), Uuid(2 << 100)],
        }
    }

    #[test]
    fn every_directory_is_formatted_and_its_identity_written_last() {
        let files = format().files(Timestamp(0)).unwrap();
        let paths: Vec<_> = files.iter().map(|file| (file.dir, &*file.path)).collect();
        let voters = "__cluster_metadata-0/00000000000000000000-0000000000.checkpoint";
        let (bootstrap, meta) = ("bootstrap.checkpoint", "meta.properties");
        assert_eq!(paths, [(0, voters), (0, bootstrap), (0, meta), (1, bootstrap), (1, meta)]);
        let (_, records) = snapshot_file::read_records(&files[1].bytes).unwrap();
        assert_eq!(records.len(), 6, "metadata.version and five features above 0");
    }

    #[test]
    fn static_voters_need_no_checkpoint_of_their_own() {
        let files = Format { standalone: None, ..format() }.files(Timestamp(0)).unwrap();
        assert!(files.iter().all(|file| !file.path.contains(METADATA_LOG_DIR)));
    }

    #[test]
    fn unknown_features_are_refused() {
        let features = alloc::vec![("tiered.version".to_string(), 1)];
        assert!(matches!(
            Format { features, ..format() }.files(Timestamp(0)),
            Err(FormatError::Feature(_))
        ));
    }
}
