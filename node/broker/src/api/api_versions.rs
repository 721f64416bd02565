//! ApiVersions (key 18): the API table and the features; clients choose by it how they behave.

use crate::client::Client;
use crate::shard::Shard;
use flowstone_metadata::MetadataVersion;
use flowstone_metadata::features::{FEATURES, Feature, KRAFT_VERSION, METADATA_VERSION};
use flowstone_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};
use flowstone_wire::{
    FinalizedFeature, RequestHeader, SupportedFeature, VersionsAnswer, api_versions_response,
};

/// Answers in any version (KIP-511).
pub fn handle(
    shard: &Shard,
    client: &Client,
    header: &RequestHeader,
    request: &ApiVersionsRequest,
) -> ApiVersionsResponse {
    let (image, offset) = shard.image_at();
    let mut finalized: Vec<FinalizedFeature> = image
        .features
        .iter()
        .map(|(name, level)| FinalizedFeature { name: name.clone(), level: *level })
        .collect();
    // The quorum's own feature is in its control records, not in the image; at 0 it is not told.
    let kraft_version = shard.node.kraft_version.get().copied().filter(|level| *level > 0);
    let name = KRAFT_VERSION.to_owned();
    finalized.extend(kraft_version.map(|level| FinalizedFeature { name, level }));
    let supported = supported();
    let answer = VersionsAnswer {
        on_controller_listener: client.on_controller_listener,
        supported: &supported,
        finalized: &finalized,
        finalized_epoch: offset.0,
        throttle_time_ms: 0,
    };
    api_versions_response(header, request, &answer)
}

/// The features of this release (kafka-reference section 2.4).
fn supported() -> Vec<SupportedFeature> {
    let own = |f: &Feature| SupportedFeature { name: f.name, min: f.min, max: f.max };
    let (lowest, latest) = (MetadataVersion::MIN.0, MetadataVersion::LATEST.0);
    let mut all: Vec<_> = FEATURES.iter().map(own).collect();
    all.push(SupportedFeature { name: KRAFT_VERSION, min: 0, max: 1 });
    all.push(SupportedFeature { name: METADATA_VERSION, min: lowest, max: latest });
    all
}
