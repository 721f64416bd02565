//! Incremental fetch sessions (KIP-227), decided.
//!
//! A session remembers which partitions a consumer wants, so that its requests name only what
//! changed and our responses only what is new. It belongs to its connection: a client that
//! reconnects opens a new one (FETCH_SESSION_ID_NOT_FOUND tells it to), and what a connection held
//! ends with it. So there is no cache to bound or to evict from; a connection has one session.
//!
//! Pure: no clock, no I/O; session ids arrive as values.

use std::collections::HashMap;

/// One partition that a consumer wants, as its request says.
#[derive(Clone, PartialEq, Debug)]
pub struct Wanted<K> {
    /// The partition.
    pub key: K,
    /// First offset wanted.
    pub offset: i64,
    /// The most bytes to send of it.
    pub max_bytes: i32,
    /// The leader epoch that the consumer knows; -1 for none.
    pub current_leader_epoch: i32,
    /// Epoch of the last record that it has; -1 for none.
    pub last_fetched_epoch: i32,
}

impl<K> Wanted<K> {
    /// The same of a partition that is known otherwise.
    pub fn without_key(&self) -> Wanted<()> {
        Wanted {
            key: (),
            offset: self.offset,
            max_bytes: self.max_bytes,
            current_leader_epoch: self.current_leader_epoch,
            last_fetched_epoch: self.last_fetched_epoch,
        }
    }
}

/// What a partition's last answer said, to leave it out where nothing changed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Said {
    /// The high watermark in that answer.
    pub high_watermark: i64,
    /// The log start offset in that answer.
    pub log_start: i64,
}

struct Followed<K> {
    wanted: Wanted<K>,
    said: Option<Said>,
}

struct Session<K> {
    id: i32,
    /// The epoch that the next incremental request must carry.
    next_epoch: i32,
    /// In the order in which they are served; the front changes from request to request, so that a
    /// full response does not starve the ones behind.
    order: Vec<K>,
    partitions: HashMap<K, Followed<K>>,
}

/// The sessions of one connection: none or one.
pub struct Sessions<K>(Option<Session<K>>);

impl<K> Default for Sessions<K> {
    fn default() -> Self {
        Self(None)
    }
}

/// What a fetch request says about sessions.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Session id; 0 for none.
    pub id: i32,
    /// 0 opens a session, -1 ends it or goes without, others continue it.
    pub epoch: i32,
}

/// Why a session cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionError {
    /// FETCH_SESSION_ID_NOT_FOUND
    IdNotFound,
    /// INVALID_FETCH_SESSION_EPOCH
    InvalidEpoch,
}

/// What to fetch, and how to answer.
#[derive(Debug, PartialEq)]
pub struct Plan<K> {
    /// The partitions, in the order in which they get their share of the bytes.
    pub wanted: Vec<Wanted<K>>,
    /// The session id for the response; 0 for none.
    pub session_id: i32,
    /// Whether partitions without news are left out of the response.
    pub incremental: bool,
}

/// Partitions that one session may hold: a request's worth of names is remembered for as long as
/// the connection lives, so a client must not be able to add to it without end.
pub const SESSION_PARTITIONS_MAX: usize = 100_000;

impl<K: Clone + Eq + std::hash::Hash> Sessions<K> {
    /// Takes up a request's partitions; `new_id` is the id that a new session would get.
    pub fn plan(
        &mut self,
        asked: Asked,
        wanted: Vec<Wanted<K>>,
        forgotten: &[K],
        new_id: i32,
    ) -> Result<Plan<K>, SessionError> {
        match asked.epoch {
            // "A request with epoch -1 ends the session and is answered in full" (KIP-227).
            -1 => {
                self.0.take_if(|session| session.id == asked.id);
                Ok(Plan { wanted, session_id: 0, incremental: false })
            }
            0 => {
                self.0 = Session::open(new_id, &wanted);
                let session_id = self.0.as_ref().map_or(0, |session| session.id);
                Ok(Plan { wanted, session_id, incremental: false })
            }
            epoch => {
                let session = self.0.as_mut().filter(|session| session.id == asked.id);
                let session = session.ok_or(SessionError::IdNotFound)?;
                if epoch != session.next_epoch {
                    return Err(SessionError::InvalidEpoch);
                }
                session.next_epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
                session.update(wanted, forgotten);
                Ok(Plan { wanted: session.rotate(), session_id: session.id, incremental: true })
            }
        }
    }

    /// Whether the answer for `key` is news to the session, and remembers it. `always` for answers
    /// that carry records or an error.
    pub fn is_news(&mut self, key: &K, now: Said, always: bool) -> bool {
        let Some(followed) = self.0.as_mut().and_then(|s| s.partitions.get_mut(key)) else {
            return true;
        };
        let before = followed.said.replace(now);
        always || before != Some(now)
    }
}

impl<K: Clone + Eq + std::hash::Hash> Session<K> {
    fn open(id: i32, wanted: &[Wanted<K>]) -> Option<Self> {
        if wanted.is_empty() || wanted.len() > SESSION_PARTITIONS_MAX {
            return None; // Answered in full, without a session: Kafka does so when its cache is full.
        }
        let mut session = Self { id, next_epoch: 1, order: Vec::new(), partitions: HashMap::new() };
        session.update(wanted.to_vec(), &[]);
        Some(session)
    }

    fn update(&mut self, wanted: Vec<Wanted<K>>, forgotten: &[K]) {
        for one in wanted {
            match self.partitions.get_mut(&one.key) {
                Some(followed) => followed.wanted = one,
                None if self.order.len() < SESSION_PARTITIONS_MAX => {
                    self.order.push(one.key.clone());
                    self.partitions.insert(one.key.clone(), Followed { wanted: one, said: None });
                }
                None => {}
            }
        }
        if !forgotten.is_empty() {
            for key in forgotten {
                self.partitions.remove(key);
            }
            self.order.retain(|key| self.partitions.contains_key(key));
        }
    }

    /// All partitions, starting one further than the last time.
    fn rotate(&mut self) -> Vec<Wanted<K>> {
        if !self.order.is_empty() {
            self.order.rotate_left(1);
        }
        self.order.iter().map(|key| self.partitions[key].wanted.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(key: char, offset: i64) -> Wanted<char> {
        Wanted { key, offset, max_bytes: 1, current_leader_epoch: -1, last_fetched_epoch: -1 }
    }

    fn opened() -> Sessions<char> {
        let mut sessions = Sessions::default();
        let plan =
            sessions.plan(Asked { id: 0, epoch: 0 }, vec![want('a', 0), want('b', 0)], &[], 7);
        assert_eq!(plan.unwrap().session_id, 7);
        sessions
    }

    #[test]
    fn an_incremental_request_names_only_what_changed() {
        let mut sessions = opened();
        let plan = sessions.plan(Asked { id: 7, epoch: 1 }, vec![want('b', 5)], &[], 8).unwrap();
        assert_eq!(plan.wanted, [want('b', 5), want('a', 0)], "all of them, rotated");
        assert!(plan.incremental);
        let plan = sessions.plan(Asked { id: 7, epoch: 2 }, vec![want('c', 1)], &['a'], 8).unwrap();
        assert_eq!(plan.wanted, [want('c', 1), want('b', 5)]);
    }

    #[test]
    fn ids_and_epochs_are_checked() {
        let mut sessions = opened();
        let plan = |s: &mut Sessions<char>, id, epoch| s.plan(Asked { id, epoch }, vec![], &[], 9);
        assert_eq!(plan(&mut sessions, 8, 1), Err(SessionError::IdNotFound));
        assert_eq!(plan(&mut sessions, 7, 2), Err(SessionError::InvalidEpoch));
        assert!(plan(&mut sessions, 7, 1).is_ok(), "a refused request changes nothing");
        assert!(!plan(&mut sessions, 7, -1).unwrap().incremental, "-1 ends the session");
        assert_eq!(plan(&mut sessions, 7, 2), Err(SessionError::IdNotFound));
    }

    #[test]
    fn the_epoch_wraps_to_one() {
        let mut sessions = opened();
        sessions.0.as_mut().unwrap().next_epoch = i32::MAX;
        assert!(sessions.plan(Asked { id: 7, epoch: i32::MAX }, vec![], &[], 0).is_ok());
        assert!(sessions.plan(Asked { id: 7, epoch: 1 }, vec![], &[], 0).is_ok());
    }

    #[test]
    fn only_news_is_said() {
        let mut sessions = opened();
        let said = Said { high_watermark: 3, log_start: 0 };
        assert!(sessions.is_news(&'a', said, false), "the first answer always");
        assert!(!sessions.is_news(&'a', said, false));
        assert!(sessions.is_news(&'a', said, true), "records always");
        assert!(sessions.is_news(&'a', Said { high_watermark: 4, ..said }, false));
    }
}
