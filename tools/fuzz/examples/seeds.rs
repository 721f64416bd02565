//! Writes the corpora, `cargo run -p flowstone-fuzz --example seeds [INSTANCES]`: small inputs of real bytes, of our own encoders, of the files of
//! Apache Kafka 4.3.1 that the crates' tests hold, and (INSTANCES: what `tools/clients/kafka/Instances.java` printed) of its generated classes.
//! Files that are there stay: what a fuzzer found belongs to the corpus, too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use flowstone_batch::{BatchBuilder, BatchHeader, Codec, HEADER_LEN};
use flowstone_coordinators::{
    GroupMetadataKey, GroupMetadataValue, MemberMetadata, OffsetCommitKey, OffsetCommitValue,
};
use flowstone_fuzz::{Random, TARGETS, pieces};
use flowstone_log::ProducerState;
use flowstone_log::journal::{Content, FRAME_HEAD_BYTES, Place, Stamp, checksum, seal_frame};
use flowstone_metadata::MetadataRecord;
use flowstone_raft::messages as m;
use flowstone_schema::Message;
use flowstone_types::{LeaderEpoch, Offset, ProducerId, Timestamp, Uuid};
use flowstone_wire::Api;

type Failure = Box<dyn std::error::Error>;

const BATCHES: &str = "../../storage/batch/tests/golden";
const QUORUM: &str = "../../quorum/metadata/tests/golden/apache-4.3.1";
const LOGS: &str = "../../node/store/tests/golden/kafka-4.3.1";
const NOW: Timestamp = Timestamp(1_799_999_999_000);
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn main() -> Result<(), Failure> {
    std::env::set_current_dir(env!("CARGO_MANIFEST_DIR"))?;
    for target in TARGETS {
        fs::create_dir_all(format!("corpus/{}", target.name))?;
    }
    if let Some(instances) = std::env::args().nth(1) {
        requests(&fs::read_to_string(instances)?)?;
    }
    batches()?;
    files()?;
    store()?;
    quorum()?;
    config()?;
    groups()
}

fn put(target: &str, name: &str, parts: &[&[u8]]) -> Result<(), Failure> {
    let path = format!("corpus/{target}/{name}");
    if !Path::new(&path).exists() {
        fs::write(path, parts.concat())?;
    }
    Ok(())
}

/// The lowest and the highest version of each API, and each version in between that has another shape.
fn requests(instances: &str) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for line in instances.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (key, version): (i16, i16) = (words[1].parse()?, words[2].parse()?);
        let Some(at) = Api::ALL.iter().position(|api| *api as i16 == key) else { continue };
        let row = Api::ALL[at].row();
        let frame = words[5];
        // Small ones: libFuzzer joins them.
        if words[0] != "request" || !row.serves(version) || !(60..800).contains(&frame.len()) {
            continue;
        }
        let wanted = [row.lowest, row.highest, row.lowest.midpoint(row.highest)];
        if !wanted.contains(&version) || !seen.insert((key, version)) {
            continue;
        }
        let pairs = frame.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or(""));
        let frame =
            pairs.map(|pair| u8::from_str_radix(pair, 16)).collect::<Result<Vec<_>, _>>()?;
        let name = format!("{}-{version}", row.name.to_lowercase());
        let choice = [at as u8, (version - row.lowest) as u8];
        put("request", &name, &[&choice, &frame[4..]])?;
        if key % 5 == 0 {
            put("frame", &name, &[&(frame.len() as u32).to_be_bytes(), &frame])?;
        }
    }
    put("frame", "http", &[b"GET / HTTP/1.1\r\nHost: kafka\r\n\r\n"])
}

fn batch(base: i64, count: i64, codec: Codec) -> Vec<u8> {
    let mut batch = BatchBuilder::new(Offset(base)).leader_epoch(LeaderEpoch(3));
    batch = batch.producer(ProducerId(9), 1, base as i32);
    if codec != Codec::None {
        batch = batch.compressed(codec, None);
    }
    for at in 0..count {
        let value = format!("value {at}, and again value {at}");
        let headers: &[(&str, Option<&[u8]>)] = &[("h", Some(b"1")), ("n", None)];
        let headers = if at % 2 == 0 { headers } else { &[] };
        batch.push(Timestamp(NOW.0 + at), Some(b"key"), Some(value.as_bytes()), headers);
    }
    batch.build().to_vec()
}

fn batches() -> Result<(), Failure> {
    for (number, codec) in CODECS.into_iter().enumerate() {
        let ours = batch(0, 3, codec);
        put("batch", &format!("ours-{}", codec.name()), &[&[0, 0], &ours])?;
        put(
            "batch",
            &format!("rules-{}", codec.name()),
            &[&[2 | (number as u8) << 3, 0b1_0101], &ours],
        )?;
        if number > 0 {
            let choice = [number as u8 - 1, 0, 3];
            put("inflate", &format!("ours-{}", codec.name()), &[&choice, &ours[HEADER_LEN..]])?;
        }
    }
    for entry in fs::read_dir(BATCHES)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).ok_or("a name")?;
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let bytes = fs::read(&path)?;
        put("batch", &format!("kafka-{name}"), &[&[0, 0x20], &bytes])?;
        if let Some(number) =
            CODECS.iter().position(|codec| codec.name() == name).filter(|n| *n > 0)
        {
            let choice = [&[number as u8 - 1][..], &bytes[59..61]].concat();
            put("inflate", &format!("kafka-{name}"), &[&choice, &bytes[HEADER_LEN..]])?;
        }
    }
    Ok(())
}

/// Batches of two records, the first at `base`.
fn segment(base: i64, count: i64) -> Vec<u8> {
    (0..count).flat_map(|at| batch(base + 2 * at, 2, Codec::None)).collect()
}

fn files() -> Result<(), Failure> {
    let ours = segment(0, 4);
    put("segment", "ours", &[&[0x60], &ours])?;
    put("segment", "at-100", &[&[0x61], &segment(100, 3)])?;
    put("segment", "near-the-end", &[&[0x62], &segment(i64::MAX - 900, 2)])?;
    put("segment", "zeros-behind", &[&[0x34], &ours, &[0; 200]])?;
    put("segment", "torn", &[&[0x35], &ours[..ours.len() - 9]])?;
    put(
        "segment",
        "kafka",
        &[&[0x74], &fs::read(format!("{LOGS}/golden-0/00000000000000000000.log"))?],
    )?;

    let topic_id = Uuid(0x1234_5678_9abc_def0_1234_5678_9abc_def0);
    let mut frame = vec![0; FRAME_HEAD_BYTES];
    let place =
        |index| Place { topic_id, topic: "orders", index, segment: Offset(40), position: 4096 };
    let heads = FRAME_HEAD_BYTES + 2 * place(0).head_bytes();
    let content = |bytes, text| Content { bytes, checksum: checksum(text), end: Offset(42) };
    let (first, second) = (heads..heads + 5, heads + 5..heads + 11);
    place(0).write_head(&content(first, b"first"), |part| frame.extend_from_slice(part));
    place(7).write_head(&content(second, b"second"), |part| frame.extend_from_slice(part));
    seal_frame(&mut frame, heads + 11, Stamp { generation: 9, number: 3, settled: 2 }, 2);
    frame.extend_from_slice(b"firstsecond");
    put("journal", "two-entries", &[&[0], &frame])?;
    put("journal", "sealed", &[&[1], &frame])?;

    let places: Vec<u8> =
        [3u32, 100, 5, 300, 9, 900].iter().flat_map(|n| n.to_be_bytes()).collect();
    put("index", "offsets", &[&[0, 2], &places, &[0; 16]])?;
    let mut moments = Vec::new();
    for (time, relative) in [(NOW.0, 3u32), (NOW.0 + 5, 9)] {
        moments.extend(time.to_be_bytes());
        moments.extend(relative.to_be_bytes());
    }
    put("index", "times", &[&[1, 3], &moments])?;
    put(
        "producers",
        "kafka",
        &[&[1], &fs::read(format!("{LOGS}/golden-0/00000000000000000100.snapshot"))?],
    )?;
    let mut state = ProducerState::new();
    for sequence in 0..7 {
        let header = BatchHeader::parse(&batch(sequence, 1, Codec::None))?;
        state.apply(&header, header.base_offset, NOW);
    }
    put("producers", "earlier", &[&[0], &state.snapshot()])?;
    put(
        "producers",
        "mended",
        &[&[0], &fs::read(format!("{LOGS}/golden-0/00000000000000000100.snapshot"))?],
    )?;

    for (which, name, text) in [
        (0, "offsets", "0\n2\nbig 0 400000\ngolden 0 100\n"),
        (1, "epochs", "0\n2\n0 0\n3 17\n"),
        (
            2,
            "meta",
            "#\n#Sat Nov 21\nnode.id=1\ndirectory.id=M2BODpf0Svi6iwGWw2x37A\nversion=1\ncluster.id=MkU3OEVBNTcwNTJENDM2Qk\n",
        ),
        (2, "meta-0", "version=0\nbroker.id=1\ncluster.id=MkU3OEVBNTcwNTJENDM2Qk\n"),
        (3, "partition", "version: 0\ntopic_id: FKAGBgRkTCGlLw2jtyjNRA"),
        (4, "clean", "{\"version\":0,\"brokerEpoch\":14}"),
        (
            5,
            "quorum",
            "{\"leaderId\":1,\"leaderEpoch\":1,\"votedId\":-1,\"votedDirectoryId\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"data_version\":1}",
        ),
        (
            5,
            "quorum-0",
            "{\"clusterId\":\"\",\"leaderId\":1,\"leaderEpoch\":2,\"votedId\":-1,\"appliedOffset\":0,\"currentVoters\":[{\"voterId\":1}],\"data_version\":0}",
        ),
        (6, "name", "00000000000000000060-0000000001.checkpoint"),
        (6, "segment-name", "00000000000000000100.timeindex"),
        (6, "directory", "orders.v1-12"),
        (
            7,
            "listing",
            "00000000000000000000.log\n00000000000000000000.index\n00000000000000000000.timeindex\n00000000000000000100.log\n00000000000000000300.index\n00000000000000000100.snapshot\n00000000000000000000.log.deleted\nx.swap\n",
        ),
    ] {
        put("checkpoint", name, &[&[which], text.as_bytes()])?;
    }
    Ok(())
}

/// Two segments with all that belongs to them; Kafka's own directory.
fn store() -> Result<(), Failure> {
    let file = |which: u8, bytes: &[u8]| [&[which][..], &pieces([bytes])].concat();
    let metadata =
        flowstone_log::encode_partition_metadata(Uuid(0x1234_5678_9abc_def0_1234_5678_9abc_def0));
    let both = [
        file(0x80, &segment(0, 3)),
        file(0x83, &segment(6, 3)),
        file(8, b"0\n1\n3 0\n"),
        file(9, metadata.as_bytes()),
    ];
    put("store", "killed", &[&both.concat()])?;
    let sealed = [file(1, &[]), file(2, &[]), file(10, b"0\n1\ntopic 0 6\n")];
    put("store", "sealed", &[&both.concat(), &sealed.concat()])?;
    put(
        "store",
        "clean",
        &[&both.concat(), &sealed.concat(), &file(4, &[]), &file(5, &[]), &file(13, b"{}")],
    )?;
    put("store", "started-late", &[&both.concat(), &file(11, b"0\n1\ntopic 0 4\n")])?;
    let golden = |name: &str| fs::read(format!("{LOGS}/golden-0/{name}"));
    let kafka = [
        file(0, &golden("00000000000000000000.log")?),
        file(1, &[]),
        file(2, &golden("00000000000000000000.timeindex")?),
        file(17, &golden("00000000000000000100.snapshot")?),
        file(8, &golden("leader-epoch-checkpoint")?),
        file(9, metadata.as_bytes()),
    ];
    put("store", "kafka", &[&kafka.concat(), &file(13, b"{\"version\":0,\"brokerEpoch\":14}")])?;
    put("store", "kafka-killed", &[&kafka.concat()])?;
    Ok(())
}

fn example<M: Message>(random: &mut Random, at: u8) -> Result<(), Failure> {
    for version in [M::VERSION_MIN, M::VERSION_MAX] {
        // The smallest of some: what is long teaches no more.
        let mut all = (0..8)
            .map(|_| M::example(version, &mut || random.bits()).to_vec(version))
            .collect::<Result<Vec<_>, _>>()?;
        all.sort_by_key(Vec::len);
        let name = format!("{}-{version}", M::NAME.to_lowercase());
        put(
            "raft",
            &name,
            &[&[at, (version - M::VERSION_MIN) as u8], &all[3][..all[3].len().min(600)]],
        )?;
    }
    Ok(())
}

fn quorum() -> Result<(), Failure> {
    let mut random = Random::new(1);
    example::<m::VoteRequest>(&mut random, 0)?;
    example::<m::VoteResponse>(&mut random, 1)?;
    example::<m::BeginQuorumEpochRequest>(&mut random, 2)?;
    example::<m::EndQuorumEpochRequest>(&mut random, 4)?;
    example::<m::FetchRequest>(&mut random, 6)?;
    example::<m::FetchResponse>(&mut random, 7)?;
    example::<m::FetchSnapshotRequest>(&mut random, 8)?;
    example::<m::FetchSnapshotResponse>(&mut random, 9)?;
    example::<m::DescribeQuorumResponse>(&mut random, 11)?;
    example::<m::AddRaftVoterRequest>(&mut random, 12)?;
    example::<m::UpdateRaftVoterRequest>(&mut random, 16)?;

    let checkpoint = |name: &str| fs::read(format!("{QUORUM}/{name}"));
    for (name, file) in [
        ("format", "format-0-0.checkpoint"),
        ("bootstrap", "format-bootstrap.checkpoint"),
        ("life", "life-60-1.checkpoint"),
    ] {
        put("snapshot", name, &[&[0], &checkpoint(file)?])?;
    }
    let log = checkpoint("life.log")?;
    put("snapshot", "log", &[&[1], &log])?;
    put("snapshot", "log-noted", &[&[3], &log])?;
    let mut values = Vec::new();
    for (number, found) in flowstone_batch::batches(&log).enumerate() {
        let (_, header, batch) = found?;
        if header.attributes.is_control() {
            put("control", &format!("log-{number}"), &[batch])?;
            continue;
        }
        let batch = bytes::Bytes::copy_from_slice(batch);
        for record in flowstone_batch::records(&batch, &flowstone_batch::Limits::default())? {
            values.extend(record?.value);
        }
    }
    for file in ["format-0-0.checkpoint", "life-60-1.checkpoint"] {
        let bytes = checkpoint(file)?;
        for (number, found) in flowstone_batch::batches(&bytes).enumerate() {
            let (_, header, batch) = found?;
            if header.attributes.is_control() {
                put("control", &format!("{}-{number}", &file[..4]), &[batch])?;
            }
        }
    }
    put("metadata", "life", &[&pieces(&values)])?;
    for (key, name, newest) in MetadataRecord::TYPES {
        let mut all = Vec::new();
        for version in 0..=*newest {
            let record = MetadataRecord::example(*key, version, &mut || random.bits())
                .ok_or("no such type")?;
            all.push(record.encode(version)?);
        }
        put("metadata", &name.to_lowercase(), &[&pieces(&all)])?;
    }
    Ok(())
}

fn config() -> Result<(), Failure> {
    for (name, how, text) in [
        (
            "whole",
            1,
            "# ours\nprocess.roles=broker,controller\nnode.id=1\nlisteners=PLAINTEXT://:9092,CONTROLLER://:9093\ncontroller.listener.names=CONTROLLER\ncontroller.quorum.voters=1@localhost:9093\nlog.dirs=/tmp/a,/tmp/b\nadvertised.listeners=PLAINTEXT://here:9092\n",
        ),
        (
            "topics",
            0,
            "log.segment.bytes=1073741824\nlog.retention.ms=-1\nlog.cleanup.policy=compact,delete\nretention.ms=5\ncleanup.policy=compact\ncompression.type=zstd\nmessage.timestamp.type=LogAppendTime\nnum.partitions=3\n",
        ),
        (
            "escapes",
            0,
            "log.di\\u0072s : /tmp/\\\n   a\n! no\nadvertised.host.name=x\nmin.insync.replicas 2\n",
        ),
        (
            "lists",
            0,
            "listener.security.protocol.map=A:PLAINTEXT,CONTROLLER:PLAINTEXT\nmax.connections.per.ip.overrides=h:5,127.0.0.1:9\nflowstone.metrics.address=127.0.0.1:9404\nlog.flush.interval.messages=1\n",
        ),
        (
            "numbers",
            0,
            "message.max.bytes=9999999999999999999\nlog.retention.hours=-2\nbroker.id=-1\nlog.index.size.max.bytes=3\nbackground.threads=0\n",
        ),
        ("bad", 0, "a=\\u12\n"),
    ] {
        put("config", name, &[&[how], text.as_bytes()])?;
    }
    Ok(())
}

fn groups() -> Result<(), Failure> {
    let (group, topic) = ("g".to_owned(), "orders".to_owned());
    let numbered = |number: i16, body: Vec<u8>| [number.to_be_bytes().to_vec(), body].concat();
    let offset_key =
        OffsetCommitKey { group: group.clone(), topic, partition: 3, ..OffsetCommitKey::default() };
    let offset_key = numbered(1, offset_key.to_vec(0)?);
    let offset = OffsetCommitValue {
        offset: 42,
        metadata: "note".to_owned(),
        commit_timestamp: NOW.0,
        ..OffsetCommitValue::default()
    };
    let group_key =
        numbered(2, GroupMetadataKey { group, ..GroupMetadataKey::default() }.to_vec(0)?);
    let member = MemberMetadata {
        member_id: "m-1".to_owned(),
        group_instance_id: Some("i".to_owned()),
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        rebalance_timeout: 300_000,
        session_timeout: 45_000,
        subscription: b"\0\x01\0\0\0\x01\0\x06orders\xff\xff\xff\xff\0\0\0\0"[..].into(),
        assignment: b"\0\x01\0\0\0\0\xff\xff\xff\xff"[..].into(),
        ..MemberMetadata::default()
    };
    let metadata = GroupMetadataValue {
        protocol_type: "consumer".to_owned(),
        generation: 5,
        protocol: Some("range".to_owned()),
        leader: Some("m-1".to_owned()),
        current_state_timestamp: NOW.0,
        members: vec![member],
        ..GroupMetadataValue::default()
    };
    for version in 0..=4 {
        let offset = numbered(version, offset.to_vec(version)?);
        let metadata = numbered(version, metadata.to_vec(version)?);
        let all = [&offset_key[..], &offset, &group_key, &metadata, &group_key, b"-"];
        put("group_records", &format!("version-{version}"), &[&pieces(all)])?;
    }
    // Kind, group "g", then fields: a join, the same with the id that came back, a sync, a heartbeat, a commit, a fetch.
    let join: &[u8] = &[0, 1, 4, 1, 8, 1, 4, 0x75, 0x30, 4, 0x75, 0x30, 8, 1, 16, 2, 7, 7, 0];
    let questions: &[&[u8]] = &[
        join,
        &[185],
        join,
        &[210, 40],
        &[1, 1, 6, 1, 0, 1, 1, 1, 0],
        &[2, 1, 6, 1, 0, 1],
        &[4, 1, 3, 4, 1, 0, 1, 2, 1, 8, 0, 1, 5, 9, 5, 1],
        &[5, 1, 1, 1],
        &[8, 1, 0, 6, 1, 1],
    ];
    put("group_requests", "life", &[&questions.concat()])?;
    put(
        "group_requests",
        "twice",
        &[&questions.concat(), &questions.concat(), &[250, 255, 250, 255]],
    )?;
    put("group_requests", "refused", &[join, &[210, 90], join, &[172], join])
}
