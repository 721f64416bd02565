//! The answer to `ApiVersions`: semantic, not cosmetic, since clients choose by it how they behave.

use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::protocol::StrBytes;

use crate::ErrorCode;
use crate::api::Listener;
use crate::request::RequestHeader;
use crate::table::Api;

/// A feature and the levels of it that this node supports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SupportedFeature {
    /// Kafka's name, such as `metadata.version`.
    pub name: &'static str,
    /// Lowest level.
    pub min: i16,
    /// Highest level.
    pub max: i16,
}

/// A feature and the level that the cluster has agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FinalizedFeature {
    /// Kafka's name, such as `metadata.version`.
    pub name: String,
    /// The level.
    pub level: i16,
}

/// What the node knows when it is asked.
#[derive(Clone, Copy, Debug)]
pub struct VersionsAnswer<'a> {
    /// On which kind of listener it was asked; the controllers' has fewer APIs.
    pub on_controller_listener: bool,
    /// What this node supports.
    pub supported: &'a [SupportedFeature],
    /// What the cluster has agreed on.
    pub finalized: &'a [FinalizedFeature],
    /// Offset in the metadata log up to which `finalized` is true; -1 where unknown.
    pub finalized_epoch: i64,
    /// For how long the client is throttled.
    pub throttle_time_ms: i32,
}

/// First version whose reader can take a supported feature with a minimum of 0.
const FEATURES_FROM_ZERO_SINCE: i16 = 4;

/// The response to `request`. Its version is that of [`RequestHeader::reply_to`].
pub fn api_versions_response(
    header: &RequestHeader,
    request: &ApiVersionsRequest,
    answer: &VersionsAnswer<'_>,
) -> ApiVersionsResponse {
    let mut response = ApiVersionsResponse::default();
    if !Api::ApiVersions.row().serves(header.version) {
        // KIP-511: the client learns from this one entry in which version to ask again.
        response.error_code = ErrorCode::UnsupportedVersion as i16;
        response.api_keys.push(advertised(Api::ApiVersions));
        return response;
    }
    let (name, version) = (&request.client_software_name, &request.client_software_version);
    if header.version >= 3 && !(valid_software(name) && valid_software(version)) {
        response.error_code = ErrorCode::InvalidRequest as i16;
        return response;
    }
    let on_listener = |api: &&Api| match api.row().listener {
        Listener::Broker => !answer.on_controller_listener,
        Listener::BrokerAndController => true,
    };
    response.api_keys = Api::ALL.iter().filter(on_listener).map(|api| advertised(*api)).collect();
    response.throttle_time_ms = answer.throttle_time_ms;
    if header.version >= 3 {
        // KAFKA-17011: older readers fail on a minimum of 0.
        let readable =
            |f: &&SupportedFeature| f.min > 0 || header.version >= FEATURES_FROM_ZERO_SINCE;
        let supported = answer.supported.iter().filter(readable);
        response.supported_features = supported.map(supported_feature).collect();
        response.finalized_features = answer.finalized.iter().map(finalized_feature).collect();
        response.finalized_features_epoch = answer.finalized_epoch;
    }
    response
}

fn advertised(api: Api) -> ApiVersion {
    let row = api.row();
    let mut version = ApiVersion::default();
    version.api_key = api as i16;
    version.min_version = row.advertised_lowest;
    version.max_version = row.highest;
    version
}

fn supported_feature(feature: &SupportedFeature) -> SupportedFeatureKey {
    let mut key = SupportedFeatureKey::default();
    key.name = StrBytes::from_static_str(feature.name);
    key.min_version = feature.min;
    key.max_version = feature.max;
    key
}

fn finalized_feature(feature: &FinalizedFeature) -> FinalizedFeatureKey {
    let mut key = FinalizedFeatureKey::default();
    key.name = StrBytes::from_string(feature.name.clone());
    key.min_version_level = feature.level;
    key.max_version_level = feature.level;
    key
}

/// KIP-511: `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`, since it becomes a metric's label.
fn valid_software(text: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ReplyTo, client};

    const ANSWER: VersionsAnswer<'_> = VersionsAnswer {
        on_controller_listener: false,
        supported: &[
            SupportedFeature { name: "metadata.version", min: 7, max: 30 },
            SupportedFeature { name: "group.version", min: 0, max: 1 },
        ],
        finalized: &[],
        finalized_epoch: 12,
        throttle_time_ms: 0,
    };

    #[test]
    fn the_table_is_what_is_advertised() {
        let response = ask(3, "flowstone", "1.0", &ANSWER);
        let keys: Vec<_> = response.api_keys.iter().map(|key| key.api_key).collect();
        assert_eq!(keys, Api::ALL.iter().map(|api| *api as i16).collect::<Vec<_>>());
        let produce = &response.api_keys[0];
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
        assert_eq!(response.finalized_features_epoch, 12);
        let controller = VersionsAnswer { on_controller_listener: true, ..ANSWER };
        let response = ask(3, "flowstone", "1.0", &controller);
        assert!(response.api_keys.iter().all(|key| key.api_key != Api::Produce as i16));
        assert!(response.api_keys.iter().any(|key| key.api_key == Api::CreateTopics as i16));
    }

    /// KAFKA-17011: "omit supported features whose minimum is 0 before version 4".
    #[test]
    fn features_from_zero_need_version_four() {
        let names = |version| {
            let response = ask(version, "a", "1", &ANSWER);
            response.supported_features.iter().map(|f| f.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(4), ["metadata.version", "group.version"]);
        assert_eq!(names(3), ["metadata.version"]);
        assert!(names(2).is_empty());
    }

    /// KIP-511: a version 0 body, UNSUPPORTED_VERSION and our own range.
    #[test]
    fn an_unknown_version_gets_our_range() {
        let response = ask(77, "", "", &ANSWER);
        assert_eq!(response.error_code, 35);
        assert_eq!(response.api_keys.len(), 1);
        assert_eq!((response.api_keys[0].api_key, response.api_keys[0].max_version), (18, 4));
    }

    #[test]
    fn software_names_become_labels() {
        for (name, good) in [
            ("apache-kafka-java", true),
            ("a", true),
            ("v1.2-rc.3", true),
            ("", false),
            ("-a", false),
            ("a.", false),
            ("a b", false),
            ("ä", false),
        ] {
            assert_eq!(ask(3, name, "1", &ANSWER).error_code, if good { 0 } else { 42 }, "{name}");
            assert_eq!(ask(3, "a", name, &ANSWER).error_code, if good { 0 } else { 42 }, "{name}");
            assert_eq!(ask(0, name, "1", &ANSWER).error_code, 0, "no such field before 3");
        }
    }

    /// Asks over the wire, so that what each version can carry is tested too.
    fn ask(
        version: i16,
        name: &str,
        software: &str,
        answer: &VersionsAnswer<'_>,
    ) -> ApiVersionsResponse {
        let header =
            RequestHeader { api: Api::ApiVersions, version, correlation_id: 1, client_id: None };
        let mut request = ApiVersionsRequest::default();
        request.client_software_name = StrBytes::from_string(name.to_owned());
        request.client_software_version = StrBytes::from_string(software.to_owned());
        let response = api_versions_response(&header, &request, answer);
        let reply: ReplyTo = header.reply_to();
        let mut parts = Vec::new();
        reply.encode(&response.into(), &mut parts).unwrap();
        client::decode::<ApiVersionsRequest>(reply.version, parts[0].slice(4..)).unwrap()
    }
}
