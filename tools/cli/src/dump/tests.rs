use super::*;
use flowstone_batch::{BatchBuilder, Codec};
use flowstone_log::encode_partition_metadata;
use flowstone_types::{ProducerId, Timestamp, Uuid};

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let id = crate::random::uuid().unwrap();
        let path = std::env::temp_dir().join(format!("flowstone-dump-{id}")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> &Self {
        fs::write(self.0.join(name), bytes).unwrap();
        self
    }

    /// What is told of it, with its path taken out, and how much is damaged.
    fn dump(&self, records: bool, json: bool) -> (String, usize) {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out, Options { records, decoder: None, json });
        report.path(&self.0).unwrap();
        let damaged = report.damaged();
        let text = String::from_utf8(out).unwrap();
        (text.replace(&format!("{}/", self.0.display()), ""), damaged)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().unwrap());
    }
}

const SEGMENT: &str = "00000000000000000005.log";

fn batch() -> Vec<u8> {
    let mut batch =
        BatchBuilder::new(Offset(5)).compressed(Codec::Zstd, None).producer(ProducerId(9), 1, 40);
    batch.push(Timestamp(7), Some(b"k"), Some(b"v"), &[("h", None)]);
    batch.push(Timestamp(8), None, None, &[]);
    batch.build().to_vec()
}

#[test]
fn a_segment_is_told_batch_by_batch() {
    let folder = Folder::new("orders-0");
    folder.put(SEGMENT, &[batch(), vec![0; 100]].concat());
    let (text, damaged) = folder.dump(true, false);
    assert_eq!(damaged, 0);
    let length = batch().len();
    assert_eq!(
        text,
        format!(
            "{SEGMENT}: segment, {} B\n  \
             offsets 5..6  2 records  {length} bytes at 0  epoch -1  1970-01-01T00:00:00.008Z  zstd  producer 9/1 sequences 40..41\n    \
             5  k = v  headers [{{\"name\":\"h\",\"value\":null}}]\n    \
             6  null = null\n  \
             position {length}: 100 bytes that were never written\n",
            length + 100
        )
    );
    let (json, _) = folder.dump(true, true);
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(first["file"], SEGMENT.to_owned());
    assert_eq!(first["records"][0]["value"], "v");
}

#[test]
fn damage_is_told_where_it_is() {
    let mut wrong = batch();
    *wrong.last_mut().unwrap() ^= 1;
    for (bytes, what) in [
        (wrong, "offset 5: the batch has a wrong CRC"),
        (batch()[..70].to_vec(), "of which 70 are there"),
        ([batch(), vec![1; 200]].concat(), "record batch of format v1"),
    ] {
        let folder = Folder::new("orders-0");
        folder.put(SEGMENT, &bytes);
        let (text, damaged) = folder.dump(true, false);
        assert!(damaged == 1 && text.contains(what), "{text}");
    }
}

#[test]
fn indexes_are_held_against_their_segment() {
    let folder = Folder::new("orders-0");
    let entry =
        |relative: u32, position: u32| [relative.to_be_bytes(), position.to_be_bytes()].concat();
    folder.put(SEGMENT, &[batch(), batch()].concat());
    let at = batch().len() as u32;
    folder.put("00000000000000000005.index", &entry(1, at));
    assert_eq!(folder.dump(false, false).1, 0);
    folder.put("00000000000000000005.index", &entry(2, at));
    let (text, damaged) = folder.dump(false, false);
    assert!(damaged == 1 && text.contains("ends with offset 6, not 7"), "{text}");
    folder.put("00000000000000000005.index", &entry(2, at)[..5]);
    assert_eq!(folder.dump(false, false).1, 1);
}

#[test]
fn small_files_are_told() {
    let folder = Folder::new("orders-0");
    folder
        .put(names::PARTITION_METADATA, encode_partition_metadata(Uuid(1)).as_bytes())
        .put(names::EPOCHS, b"0\n1\n3 17\n")
        .put(names::RECOVERY_POINTS, b"0\n1\norders 0 20\n")
        .put("quorum-state", br#"{"leaderId":1,"leaderEpoch":2,"votedId":-1,"data_version":1}"#)
        .put("00000000000000000005.log.deleted", b"anything");
    let (text, damaged) = folder.dump(false, false);
    assert_eq!(damaged, 0);
    for line in [
        "topic id AAAAAAAAAAAAAAAAAAAAAQ",
        "epoch 3 from offset 17",
        "orders-0 20",
        "epoch 2, leader 1, voted for -1",
    ] {
        assert!(text.contains(&format!("  {line}\n")), "{text}");
    }
    folder.put(names::EPOCHS, b"1\n");
    assert_eq!(folder.dump(false, false).1, 1);
}

#[test]
fn metadata_is_decoded() {
    use flowstone_metadata::format::{Endpoint, Format};
    let endpoint = Endpoint { listener: "CONTROLLER".into(), host: "h".into(), port: 9093 };
    let format = Format {
        cluster_id: "c".into(),
        node_id: flowstone_types::NodeId(1),
        version: flowstone_metadata::MetadataVersion::LATEST,
        features: vec![],
        standalone: Some(endpoint),
        directory_ids: vec![Uuid(1 << 90)],
    };
    let folder = Folder::new("data");
    fs::create_dir(folder.0.join("__cluster_metadata-0")).unwrap();
    for file in format.files(Timestamp(5)).unwrap() {
        folder.put(&file.path, &file.bytes);
    }
    let (text, damaged) = folder.dump(true, false);
    assert_eq!(damaged, 0, "{text}");
    for part in [
        r#"FeatureLevelRecord {"feature_level":30,"name":"metadata.version"}"#,
        r#"KraftVoters {"version":0,"voters":[{"endpoints":[{"host":"h","name":"CONTROLLER","port":9093}]"#,
        "whole: 6 records, kraft.version 0",
        "whole: 0 records, kraft.version 1",
        "cluster c, node 1, directory",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn group_records_are_decoded() {
    use flowstone_coordinators::{OffsetCommitKey, OffsetCommitValue};
    use flowstone_schema::Message;
    let key = OffsetCommitKey {
        group: "g".into(),
        topic: "orders".into(),
        partition: 3,
        ..OffsetCommitKey::default()
    };
    let value = OffsetCommitValue { offset: 42, ..OffsetCommitValue::default() };
    let framed = |number: i16, body: Vec<u8>| [number.to_be_bytes().to_vec(), body].concat();
    let key = framed(1, key.to_vec(0).unwrap());
    let mut batch = BatchBuilder::new(Offset(5));
    batch.push(Timestamp(1), Some(&key), Some(&framed(4, value.to_vec(4).unwrap())), &[]);
    batch.push(Timestamp(1), Some(&key), None, &[]);
    batch.push(Timestamp(1), Some(&[0, 99]), None, &[]);
    let folder = Folder::new("__consumer_offsets-12");
    folder.put(SEGMENT, &batch.build());
    let (text, damaged) = folder.dump(true, false);
    assert_eq!(damaged, 0, "{text}");
    let place = r#"OffsetCommit {"group":"g","partition":3,"topic":"orders"} = "#;
    assert!(text.contains(&format!(r#"5  {place}{{"commit_timestamp":0"#)), "{text}");
    assert!(text.contains(r#""offset":42"#) && text.contains(&format!("6  {place}null")), "{text}");
    assert!(text.contains("7  type 99 "), "{text}");
}
