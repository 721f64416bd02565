//! Random instances of every metadata record and of every RPC of the metadata quorum, in every version: a line
//! each, `KIND KEY VERSION HEX`. `cargo run --example instances SEED COUNT`, COUNT of each type and version.
//!
//! Separate because other readers than ours are to judge them: Kafka's own classes read and write each
//! (`tools/clients/kafka/RoundTrip.java`), and no byte may change.

use std::io::{BufWriter, Write, stdout};

use flowstone_metadata::MetadataRecord;
use flowstone_raft::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, BeginQuorumEpochRequest, BeginQuorumEpochResponse,
    DescribeQuorumRequest, DescribeQuorumResponse, EndQuorumEpochRequest, EndQuorumEpochResponse,
    FetchRequest, FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse,
    RemoveRaftVoterRequest, RemoveRaftVoterResponse, UpdateRaftVoterRequest,
    UpdateRaftVoterResponse, VoteRequest, VoteResponse,
};
use flowstone_schema::Message;

type Failure = Box<dyn std::error::Error>;

/// Where the instances go, and what they are made of.
struct Instances<'a> {
    out: &'a mut dyn Write,
    state: u64,
    count: usize,
}

impl Instances<'_> {
    fn draw(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *state >> 33 ^ *state
    }

    fn line(&mut self, kind: &str, key: i16, version: i16, bytes: &[u8]) -> Result<(), Failure> {
        write!(self.out, "{kind} {key} {version} ")?;
        for byte in bytes {
            write!(self.out, "{byte:02x}")?;
        }
        Ok(writeln!(self.out)?)
    }

    fn messages<M: Message>(&mut self, kind: &str) -> Result<(), Failure> {
        for version in M::VERSION_MIN..=M::VERSION_MAX {
            for _ in 0..self.count {
                let message = M::example(version, &mut || Self::draw(&mut self.state));
                self.line(kind, M::KEY, version, &message.to_vec(version)?)?;
            }
        }
        Ok(())
    }

    fn both<Request: Message, Response: Message>(&mut self) -> Result<(), Failure> {
        self.messages::<Request>("request")?;
        self.messages::<Response>("response")
    }

    fn records(&mut self) -> Result<(), Failure> {
        for (key, _, newest) in MetadataRecord::TYPES {
            for version in 0..=*newest {
                for _ in 0..self.count {
                    let draw = &mut || Self::draw(&mut self.state);
                    let record =
                        MetadataRecord::example(*key, version, draw).ok_or("undeclared")?;
                    self.line("record", *key, version, &record.encode(version)?)?;
                }
            }
        }
        Ok(())
    }
}

fn main() -> Result<(), Failure> {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let (Some(seed), Some(count)) = (numbers.next(), numbers.next()) else {
        return Err("usage: instances SEED COUNT".into());
    };
    let mut out = BufWriter::new(stdout().lock());
    let mut all = Instances { out: &mut out, state: seed?, count: count? as usize };
    all.records()?;
    all.both::<VoteRequest, VoteResponse>()?;
    all.both::<BeginQuorumEpochRequest, BeginQuorumEpochResponse>()?;
    all.both::<EndQuorumEpochRequest, EndQuorumEpochResponse>()?;
    all.both::<FetchRequest, FetchResponse>()?;
    all.both::<FetchSnapshotRequest, FetchSnapshotResponse>()?;
    all.both::<DescribeQuorumRequest, DescribeQuorumResponse>()?;
    all.both::<AddRaftVoterRequest, AddRaftVoterResponse>()?;
    all.both::<RemoveRaftVoterRequest, RemoveRaftVoterResponse>()?;
    all.both::<UpdateRaftVoterRequest, UpdateRaftVoterResponse>()?;
    out.flush()?;
    Ok(())
}
