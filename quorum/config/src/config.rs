//! From files, flags and the metadata log to the configuration that the daemon runs on.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::keys::{
    Fallback, Settings, TopicConfig, group_key, server_key, server_keys, topic_key, topic_keys,
};
use crate::layers::{Layers, Overrides};
use crate::listeners::Endpoint;
use crate::problem::{Place, Problem, Problems};
use crate::rules::Found;
use crate::{known, properties, rules};

/// The configuration of one node, whole and checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The keys that are used, typed.
    pub settings: Settings,
    /// What this node is.
    pub roles: Roles,
    /// Where clients and brokers connect.
    pub listeners: Vec<Endpoint>,
    /// Where controllers connect.
    pub controller_listeners: Vec<Endpoint>,
    /// What clients are told to connect to, by listener.
    pub advertised: Vec<Endpoint>,
    /// The name of the listener brokers use among themselves.
    pub inter_broker_listener: String,
    /// The folders for data, at least one.
    pub data_dirs: Vec<String>,
    /// The folder of the metadata log.
    pub metadata_dir: String,
    /// `max.connections.per.ip.overrides`: a host and its limit.
    pub connections_per_ip: Vec<(String, i32)>,
    /// Where `/metrics` is served, if it is.
    pub metrics_address: Option<(String, u16)>,
    pub(crate) layers: Layers,
    is_dev: bool,
}

/// `process.roles`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roles {
    /// Holds partitions, serves clients.
    pub broker: bool,
    /// Votes in the metadata quorum.
    pub controller: bool,
}

/// A configuration file, read.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// What it says.
    pub text: &'a str,
}

/// A configuration that can be run, and what should be said about it.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Lines to log, each once.
    pub warnings: Vec<String>,
}

impl Config {
    /// The configuration in `file`, with `set` (the `--set key=value` options) over it.
    pub fn load(file: Option<File<'_>>, set: &[(String, String)]) -> Result<Loaded, Problems> {
        Loading::default().run(file, set, false)
    }

    /// `flowstoned dev`: a node of both roles that needs no file, on `port` of this host, with its
    /// data in `data_dir`.
    pub fn dev(data_dir: &str, port: u16, set: &[(String, String)]) -> Result<Loaded, Problems> {
        let text = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:0\n\
             controller.listener.names=CONTROLLER\n\
             controller.quorum.bootstrap.servers=127.0.0.1:{port}\n\
             offsets.topic.replication.factor=1\n"
        );
        let data_dir = ("log.dirs".to_owned(), data_dir.to_owned());
        let set: Vec<_> = core::iter::once(data_dir).chain(set.iter().cloned()).collect();
        let file = File { name: "flowstoned dev", text: &text };
        Loading::default().run(Some(file), &set, true)
    }

    /// This configuration with what the metadata log has for brokers over it: `all_brokers` (the
    /// cluster default) and, stronger, `this_broker`. What cannot hold is left out and reported.
    pub fn with_dynamic(
        &self,
        all_brokers: Option<&Overrides>,
        this_broker: Option<&Overrides>,
    ) -> (Self, Vec<String>) {
        let mut complaints = Vec::new();
        let mut admitted = |overrides: Option<&Overrides>| -> Overrides {
            let pairs = overrides.into_iter().flatten();
            let checked = pairs.filter(|(name, text)| {
                let complaint = server_key(name).and_then(|key| key.check(text).err());
                complaints.extend(complaint.iter().cloned());
                complaint.is_none()
            });
            checked.map(|(name, text)| (name.clone(), text.clone())).collect()
        };
        let (dynamic_default, dynamic_broker) = (admitted(all_brokers), admitted(this_broker));
        let layers = Layers { fixed: self.layers.fixed.clone(), dynamic_default, dynamic_broker };
        match assemble(layers, self.is_dev) {
            Ok(config) => (config, complaints),
            Err(problems) => {
                complaints.extend(problems.into_iter().map(|(_, text)| text));
                (self.clone(), complaints)
            }
        }
    }

    /// Every directory that this node holds: that of the metadata log first, without which nothing goes, then the
    /// others of `log.dirs`.
    pub fn all_dirs(&self) -> impl Iterator<Item = &String> {
        let others = self.data_dirs.iter().filter(|dir| **dir != self.metadata_dir);
        core::iter::once(&self.metadata_dir).chain(others)
    }

    /// A topic's configuration: what was set for it, over this broker's defaults. A text that does
    /// not check (an older release may have taken it) counts as not set.
    pub fn topic(&self, overrides: Option<&Overrides>) -> TopicConfig {
        let texts: BTreeMap<&str, String> = topic_keys()
            .filter_map(|key| Some((key.name, self.topic_text(key.name, overrides)?)))
            .collect();
        TopicConfig::read(|name| texts.get(name).map(String::as_str))
    }

    /// The text that holds for a server's key on this broker; `None` where there is none.
    pub fn server_text(&self, name: &str) -> Option<&str> {
        self.layers.effective(name)
    }

    /// The text that holds for a topic's key where the topic does not set it.
    pub fn topic_default(&self, name: &str) -> Option<String> {
        self.layers.inherited(topic_key(name)?)
    }

    /// The text that holds for a group's key where the group does not set it.
    pub fn group_default(&self, name: &str) -> Option<String> {
        self.layers.inherited(group_key(name)?)
    }

    /// Whether this configuration would hold with `set` as what is set for all brokers, or for this
    /// one; the error is what would not.
    pub(crate) fn check_dynamic(
        &self,
        set: &Overrides,
        for_all_brokers: bool,
    ) -> Result<(), String> {
        let mut layers = self.layers.clone();
        let layer =
            if for_all_brokers { &mut layers.dynamic_default } else { &mut layers.dynamic_broker };
        layer.clone_from(set);
        let texts =
            |problems: Found| problems.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assemble(layers, self.is_dev).map(drop).map_err(|problems| texts(problems).join("; "))
    }

    /// The text that holds for a topic's key.
    pub(crate) fn topic_text(&self, name: &str, overrides: Option<&Overrides>) -> Option<String> {
        let key = topic_key(name)?;
        let set = overrides.and_then(|set| set.get(name)).filter(|text| key.check(text).is_ok());
        set.cloned().or_else(|| self.layers.inherited(key))
    }
}

/// What is gathered while a configuration is read.
#[derive(Default)]
struct Loading {
    fixed: Overrides,
    seen: BTreeSet<String>,
    places: BTreeMap<String, Place>,
    problems: Vec<Problem>,
    not_needed: BTreeMap<&'static str, Vec<String>>,
    warnings: Vec<String>,
}

impl Loading {
    fn run(
        mut self,
        file: Option<File<'_>>,
        set: &[(String, String)],
        is_dev: bool,
    ) -> Result<Loaded, Problems> {
        if let Some(file) = file {
            self.read_file(file);
        }
        for (name, text) in set {
            self.take(name, text, Place::Flag);
        }
        for key in server_keys().filter(|key| key.default == Fallback::Required) {
            if !self.seen.contains(key.name) {
                let text = format!("{} must be set: {}", key.name, key.doc);
                self.problems.push(Problem { place: Place::Nowhere, text });
            }
        }
        if !self.problems.is_empty() {
            return Err(Problems(self.problems));
        }
        let layers = Layers { fixed: self.fixed, ..Layers::default() };
        self.warnings.extend(rules::warnings(&layers));
        if !self.not_needed.is_empty() {
            let groups: Vec<String> = self
                .not_needed
                .iter()
                .map(|(why, names)| format!("{} ({why})", names.join(", ")))
                .collect();
            self.warnings.push(format!("accepted, but not needed: {}", groups.join("; ")));
        }
        let config = assemble(layers, is_dev).map_err(|problems| {
            let problem = |(name, text): (&str, String)| Problem {
                place: self.places.get(name).cloned().unwrap_or(Place::Nowhere),
                text,
            };
            Problems(problems.into_iter().map(problem).collect())
        })?;
        Ok(Loaded { config, warnings: self.warnings })
    }

    fn read_file(&mut self, file: File<'_>) {
        let place = |line| Place::Line { file: file.name.to_owned(), line };
        match properties::parse(file.text) {
            Err(bad) => {
                let text = "\\u must be followed by four hexadecimal digits".to_owned();
                self.problems.push(Problem { place: place(bad.line), text });
            }
            Ok(found) => {
                for property in found {
                    if let Some(Place::Line { line, .. }) = self.places.get(&property.key) {
                        self.warnings.push(format!(
                            "{}:{}: {} was set in line {line} already; this one counts",
                            file.name, property.line, property.key
                        ));
                    }
                    self.take(&property.key, &property.value, place(property.line));
                }
            }
        }
    }

    fn take(&mut self, name: &str, text: &str, place: Place) {
        self.seen.insert(name.to_owned());
        match known::judge(name, text) {
            Ok(known::Verdict::Used) => {}
            Ok(known::Verdict::NotNeeded(why)) => {
                let names = self.not_needed.entry(why).or_default();
                if !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
            }
            Err(text) => return self.problems.push(Problem { place, text }),
        }
        let is_null = server_key(name).is_some_and(|key| key.default == Fallback::None);
        if text.trim().is_empty() && is_null {
            self.fixed.remove(name); // An empty text is how a file says null.
        } else {
            self.fixed.insert(name.to_owned(), text.trim().to_owned());
        }
        self.places.insert(name.to_owned(), place);
    }
}

/// Puts a configuration together from layers whose every text has been checked alone. Problems
/// come with the key they are about.
fn assemble(layers: Layers, is_dev: bool) -> Result<Config, Found> {
    let settings = Settings::read(|name| layers.effective(name));
    let parts = rules::check(&settings, &layers, is_dev)?;
    let data_dirs = match &settings.log_dirs {
        Some(dirs) if !dirs.0.is_empty() => dirs.0.clone(),
        Some(_) | None => settings.log_dir.0.clone(),
    };
    let metadata_dir = settings.metadata_log_dir.clone().filter(|dir| !dir.is_empty());
    Ok(Config {
        roles: parts.roles,
        listeners: parts.listeners,
        controller_listeners: parts.controller_listeners,
        advertised: parts.advertised,
        inter_broker_listener: parts.inter_broker_listener,
        metadata_dir: metadata_dir.unwrap_or_else(|| data_dirs[0].clone()),
        data_dirs,
        connections_per_ip: parts.connections_per_ip,
        metrics_address: parts.metrics_address,
        settings,
        layers,
        is_dev,
    })
}
