//! What must hold between keys: Kafka's refusals at start-up, and what one node can do.

use crate::config::Roles;
use crate::keys::Settings;
use crate::layers::Layers;
use crate::listeners::{self, Endpoint, check_distinct, parse_all};
use crate::value::{CleanupPolicy, Value};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Why `compact` cannot be had.
const NO_COMPACTION: &str =
    "cleanup.policy compact is not there yet: Flowstone does not compact logs; use delete";

/// What the rules make of the settings.
pub(crate) struct Parts {
    pub roles: Roles,
    pub listeners: Vec<Endpoint>,
    pub controller_listeners: Vec<Endpoint>,
    pub advertised: Vec<Endpoint>,
    pub inter_broker_listener: String,
    pub connections_per_ip: Vec<(String, i32)>,
    pub metrics_address: Option<(String, u16)>,
}

/// Problems, each with the key it is about.
pub(crate) type Found = Vec<(&'static str, String)>;

/// Checks what single keys cannot: the rules of `KafkaConfig.validateValues`, then our own limits.
pub(crate) fn check(settings: &Settings, layers: &Layers, is_dev: bool) -> Result<Parts, Found> {
    let mut found = Found::new();
    let roles = Roles {
        broker: settings.process_roles.0.iter().any(|role| role == "broker"),
        controller: settings.process_roles.0.iter().any(|role| role == "controller"),
    };
    quorum(settings, roles, layers, &mut found);
    let (listeners, controller_listeners, advertised, inter_broker_listener) =
        network(settings, roles, layers, &mut found);
    let connections_per_ip = connections(settings, &mut found);
    logs(settings, layers, &mut found);
    replication(layers, &mut found);
    one_node(settings, roles, &mut found);
    if settings.data_buffered && !is_dev {
        let text = "flowstone.data.buffered is for flowstoned dev: a server needs direct I/O";
        found.push(("flowstone.data.buffered", text.to_owned()));
    }
    let metrics_address = match settings.metrics_listener.as_str() {
        "" => None,
        address => match listeners::parse_address(address) {
            Ok(address) => Some(address),
            Err(text) => {
                found.push(("flowstone.metrics.listener", text));
                None
            }
        },
    };
    if !found.is_empty() {
        return Err(found);
    }
    Ok(Parts {
        roles,
        listeners,
        controller_listeners,
        advertised,
        inter_broker_listener,
        connections_per_ip,
        metrics_address,
    })
}

/// What may be meant as it is written, but should be known. Texts, one line each.
pub(crate) fn warnings(layers: &Layers) -> Vec<String> {
    let number = |name| layers.effective(name).and_then(i64::parse).unwrap_or_default();
    let (beat, session) =
        (number("broker.heartbeat.interval.ms"), number("broker.session.timeout.ms"));
    let mut warnings = Vec::new();
    if beat * 2 > session {
        warnings.push(format!(
            "broker.heartbeat.interval.ms ({beat}) should be at most half of \
             broker.session.timeout.ms ({session})"
        ));
    }
    // A cluster of one node cannot have more than one replica of anything.
    for (key, what) in [
        ("offsets.topic.replication.factor", "no consumer group will work"),
        ("default.replication.factor", "topics cannot be created without saying how many replicas"),
        ("min.insync.replicas", "nothing can be written with acks=all"),
    ] {
        if number(key) > 1 {
            warnings.push(format!(
                "{key} is {}, but the cluster is one node: {what}; set it to 1",
                number(key)
            ));
        }
    }
    warnings
}

fn quorum(settings: &Settings, roles: Roles, layers: &Layers, found: &mut Found) {
    let id = settings.node_id;
    if settings.broker_id != -1 && settings.broker_id != id {
        let text = format!("broker.id ({}) must be the same as node.id ({id})", settings.broker_id);
        found.push(("broker.id", text));
    }
    if !roles.broker && !roles.controller {
        let text = "process.roles must name broker, controller, or both";
        found.push(("process.roles", text.to_owned()));
    }
    let voters = &settings.controller_quorum_voters.0;
    let servers = &settings.controller_quorum_bootstrap_servers.0;
    if voters.is_empty() && servers.is_empty() {
        let text = "set controller.quorum.bootstrap.servers to where the controllers are \
                    (host:port), or controller.quorum.voters (id@host:port)";
        found.push(("controller.quorum.bootstrap.servers", text.to_owned()));
    }
    for server in servers {
        if let Err(text) = listeners::parse_address(server) {
            found.push(("controller.quorum.bootstrap.servers", text));
        }
    }
    let mut ids = Vec::new();
    for voter in voters {
        let parsed = voter.split_once('@').and_then(|(id, address)| {
            listeners::parse_address(address).ok()?;
            i32::parse(id).filter(|id| *id >= 0)
        });
        if let Some(id) = parsed {
            ids.push(id);
        } else {
            let text = format!("{voter:?} is no voter: expected id@host:port");
            found.push(("controller.quorum.voters", text));
        }
    }
    if ids.len() == voters.len() && !ids.is_empty() {
        if roles.controller && !ids.contains(&id) {
            let text = format!("node {id} has the role controller, so it must be among the voters");
            found.push(("controller.quorum.voters", text));
        }
        if !roles.controller && ids.contains(&id) {
            let text = format!("node {id} lacks the role controller, so it cannot be a voter");
            found.push(("controller.quorum.voters", text));
        }
    }
    let joins = layers.effective("controller.quorum.auto.join.enable").and_then(bool::parse);
    if joins == Some(true) && !roles.controller {
        let text = "only a controller can join the quorum by itself";
        found.push(("controller.quorum.auto.join.enable", text.to_owned()));
    }
}

fn network(
    settings: &Settings,
    roles: Roles,
    layers: &Layers,
    found: &mut Found,
) -> (Vec<Endpoint>, Vec<Endpoint>, Vec<Endpoint>, String) {
    let upper = |name: &String| name.trim().to_uppercase();
    let controller_names: Vec<String> =
        settings.controller_listener_names.0.iter().map(upper).collect();
    let mut problems = Vec::new();
    let all = parse_all(&settings.listeners.0, &mut problems);
    check_distinct(&all, true, &mut problems);
    found.extend(problems.drain(..).map(|text| ("listeners", text)));

    let is_controllers = |endpoint: &Endpoint| controller_names.contains(&endpoint.listener);
    let (controllers, clients): (Vec<_>, Vec<_>) = all.iter().cloned().partition(is_controllers);
    if controller_names.is_empty() {
        let text = "controller.listener.names must name at least one listener";
        found.push(("controller.listener.names", text.to_owned()));
    } else if roles.controller && controllers.is_empty() && !all.is_empty() {
        let text = format!(
            "a controller must listen where controller.listener.names says: \
             add {}://:9093 to listeners",
            controller_names[0]
        );
        found.push(("listeners", text));
    }
    if !roles.controller && !controllers.is_empty() {
        let text = "a broker without the role controller cannot have a controller's listener";
        found.push(("listeners", text.to_owned()));
    }
    if !roles.broker && !clients.is_empty() {
        let text = "a controller without the role broker can have controllers' listeners only";
        found.push(("listeners", text.to_owned()));
    }

    protocols(settings, &all, &controller_names, layers, found);
    let advertised = advertised(settings, roles, &all, &clients, found);

    let by_name = settings.inter_broker_listener_name.as_ref().map(upper);
    let protocol_was_set = layers.fixed.contains_key("security.inter.broker.protocol");
    if by_name.is_some() && protocol_was_set {
        let text = "set only one of inter.broker.listener.name and security.inter.broker.protocol";
        found.push(("inter.broker.listener.name", text.to_owned()));
    }
    let inter_broker = by_name.unwrap_or_else(|| settings.security_inter_broker_protocol.clone());
    if roles.broker && !advertised.is_empty() {
        if controller_names.contains(&inter_broker) {
            let text = format!("{inter_broker} is a controllers' listener, not for brokers");
            found.push(("inter.broker.listener.name", text));
        } else if !advertised.iter().any(|endpoint| endpoint.listener == inter_broker) {
            let text = format!(
                "brokers use the listener {inter_broker} among themselves, so it must be advertised; \
                 set inter.broker.listener.name to one that is"
            );
            found.push(("inter.broker.listener.name", text));
        }
    }
    (clients, controllers, advertised, inter_broker)
}

/// Every listener has a protocol, and it is PLAINTEXT.
fn protocols(
    settings: &Settings,
    all: &[Endpoint],
    controller_names: &[String],
    layers: &Layers,
    found: &mut Found,
) {
    let key = "listener.security.protocol.map";
    let map = match listeners::parse_protocols(&settings.listener_security_protocol_map) {
        Ok(map) => map,
        Err(text) => return found.push((key, text)),
    };
    // Controllers' listeners are PLAINTEXT without being in the map, while it is the default and no
    // other listener is secured.
    let secured = |name: &str| matches!(name, "SSL" | "SASL_PLAINTEXT" | "SASL_SSL");
    let names = || all.iter().map(|e| &e.listener).chain(controller_names);
    let lenient = !layers.fixed.contains_key(key) && !names().any(|name| secured(name));
    let mut asked: Vec<&String> = Vec::new();
    for name in names() {
        if asked.contains(&name) {
            continue;
        }
        asked.push(name);
        match map.iter().find(|(known, _)| known == name).map(|(_, protocol)| protocol.as_str()) {
            Some("PLAINTEXT") => {}
            Some(protocol) => {
                let text = format!(
                    "listener {name} asks for {protocol}: only PLAINTEXT is there yet, and serving it \
                     in clear instead would be wrong"
                );
                found.push(("listeners", text));
            }
            None if lenient && controller_names.contains(name) => {}
            None => {
                let text =
                    format!("listener {name} has no protocol: add {name}:PLAINTEXT to {key}");
                found.push((key, text));
            }
        }
    }
}

fn advertised(
    settings: &Settings,
    roles: Roles,
    all: &[Endpoint],
    clients: &[Endpoint],
    found: &mut Found,
) -> Vec<Endpoint> {
    let key = "advertised.listeners";
    let mut problems = Vec::new();
    let advertised = match &settings.advertised_listeners {
        Some(list) if !list.0.is_empty() => {
            let advertised = parse_all(&list.0, &mut problems);
            // KIP-291: ports may repeat here, since they may be a load balancer's.
            check_distinct(&advertised, false, &mut problems);
            for endpoint in &advertised {
                if !all.iter().any(|known| known.listener == endpoint.listener) {
                    let name = &endpoint.listener;
                    problems.push(format!("{name} is advertised, but is not one of the listeners"));
                }
            }
            let of_clients = |endpoint: &Endpoint| {
                clients.iter().any(|known| known.listener == endpoint.listener)
            };
            advertised.into_iter().filter(of_clients).collect()
        }
        Some(_) | None => clients.to_vec(),
    };
    if advertised.iter().any(|endpoint| endpoint.host.as_deref() == Some("0.0.0.0")) {
        let text = "nobody can connect to 0.0.0.0: set advertised.listeners to a name or address \
                    that clients can reach";
        problems.push(text.to_owned());
    }
    if roles.broker && advertised.is_empty() && problems.is_empty() && !all.is_empty() {
        problems.push("a broker must advertise at least one listener to clients".to_owned());
    }
    found.extend(problems.into_iter().map(|text| (key, text)));
    advertised
}

fn connections(settings: &Settings, found: &mut Found) -> Vec<(String, i32)> {
    let key = "max.connections.per.ip.overrides";
    let text = &settings.connections_per_ip_overrides;
    let mut overrides = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        // The last colon divides: the host may be an IPv6 address.
        let parsed = pair.rsplit_once(':').and_then(|(host, count)| {
            let count = i32::parse(count.trim()).filter(|count| *count >= 0)?;
            (!host.trim().is_empty()).then(|| (host.trim().to_owned(), count))
        });
        match parsed {
            Some(pair) => overrides.push(pair),
            None => found.push((key, format!("{pair:?} is no host:number"))),
        }
    }
    if settings.connections_per_ip_max == 0 && overrides.is_empty() {
        let text = "max.connections.per.ip can be 0 only if max.connections.per.ip.overrides lets \
                    someone in";
        found.push(("max.connections.per.ip", text.to_owned()));
    }
    overrides
}

fn logs(settings: &Settings, layers: &Layers, found: &mut Found) {
    let dirs = settings.log_dirs.as_ref().filter(|dirs| !dirs.0.is_empty());
    let (key, dirs) = match dirs {
        Some(dirs) => ("log.dirs", dirs),
        None => ("log.dir", &settings.log_dir),
    };
    if dirs.0.is_empty() || dirs.0.iter().any(String::is_empty) {
        found.push((key, format!("{key} must name a folder")));
    }
    for (at, dir) in dirs.0.iter().enumerate() {
        if dirs.0[..at].contains(dir) {
            found.push((key, format!("{key} names {dir} twice")));
        }
    }
    for key in ["log.retention.ms", "log.retention.minutes", "log.retention.hours"] {
        let time = layers.effective(key).and_then(i64::parse);
        if time.is_some_and(|time| time < -1 || time == 0) {
            found.push((key, format!("{key} must be -1 (for ever), or at least 1")));
        }
    }
    let policy = layers.effective("log.cleanup.policy").and_then(CleanupPolicy::parse);
    if policy.is_some_and(|policy| policy.compact) {
        found.push(("log.cleanup.policy", NO_COMPACTION.to_owned()));
    }
    let (min, max) = (settings.group_session_timeout_ms_min, settings.group_session_timeout_ms_max);
    if min > max {
        let text = format!(
            "group.min.session.timeout.ms ({min}) is above group.max.session.timeout.ms ({max}): no \
             member could join"
        );
        found.push(("group.min.session.timeout.ms", text));
    }
}

fn replication(layers: &Layers, found: &mut Found) {
    let number = |name| layers.effective(name).and_then(i64::parse).unwrap_or_default();
    let wait = number("replica.fetch.wait.max.ms");
    for above in ["replica.socket.timeout.ms", "replica.lag.time.max.ms"] {
        if wait > number(above) {
            let text = format!("replica.fetch.wait.max.ms ({wait}) must not be above {above}");
            found.push(("replica.fetch.wait.max.ms", text));
        }
    }
    let queued = number("queued.max.request.bytes");
    if queued != -1 && queued < number("socket.request.max.bytes") {
        let text = "queued.max.request.bytes must be -1, or at least socket.request.max.bytes";
        found.push(("queued.max.request.bytes", text.to_owned()));
    }
}

/// What this release can be: one node that is the whole cluster.
fn one_node(settings: &Settings, roles: Roles, found: &mut Found) {
    if roles.broker != roles.controller {
        let text = "a node is broker and controller at once for now: \
                    set process.roles=broker,controller";
        found.push(("process.roles", text.to_owned()));
    }
    for (key, list) in [
        ("controller.quorum.voters", &settings.controller_quorum_voters),
        ("controller.quorum.bootstrap.servers", &settings.controller_quorum_bootstrap_servers),
    ] {
        if list.0.len() > 1 {
            let text = format!("{key} names several controllers: a cluster is one node for now");
            found.push((key, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, File, Loaded};
    use crate::problem::Problems;

    const SAMPLE: &str = "\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/var/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
";

    /// kafka-reference 7.1: "the sample config/server.properties is the drop-in target".
    #[test]
    fn kafkas_own_sample_runs() {
        let Loaded { config, warnings } = load(&[]).unwrap();
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(config.controller_listeners[0].port, 9093);
        assert_eq!(config.advertised[0].to_string(), "PLAINTEXT://localhost:9092");
        assert_eq!(config.inter_broker_listener, "PLAINTEXT");
        assert_eq!(config.data_dirs, ["/var/kraft-combined-logs"]);
        assert_eq!(config.metadata_dir, config.data_dirs[0]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("num.io.threads"), "{warnings:?}");
    }

    #[test]
    fn kafkas_refusals_are_ours() {
        for (set, want) in [
            ("broker.id=2", "must be the same as node.id"),
            ("process.roles=", "process.roles"),
            ("controller.quorum.bootstrap.servers=", "set controller.quorum.bootstrap.servers"),
            ("controller.quorum.bootstrap.servers=localhost", "expected host:port"),
            ("controller.quorum.voters=localhost:9093", "expected id@host:port"),
            ("controller.quorum.voters=2@localhost:9093", "must be among the voters"),
            ("process.roles=broker controller.quorum.voters=1@h:1", "cannot be a voter"),
            ("process.roles=broker", "cannot have a controller's listener"),
            (
                "process.roles=broker controller.quorum.auto.join.enable=true",
                "only a controller can join",
            ),
            ("process.roles=controller", "controllers' listeners only"),
            ("controller.listener.names=", "at least one listener"),
            ("listeners=PLAINTEXT://:9092", "a controller must listen where"),
            ("listeners=PLAINTEXT://:9092,CONTROLLER://:9092", "different port"),
            ("listeners=PLAINTEXT://:1,PLAINTEXT://:2,CONTROLLER://:9093", "different name"),
            ("listeners=nonsense", "is no listener"),
            ("listeners=OTHER://:9092,CONTROLLER://:9093", "listener OTHER has no protocol"),
            ("advertised.listeners=OTHER://h:1", "not one of the listeners"),
            ("advertised.listeners=PLAINTEXT://0.0.0.0:9092", "nobody can connect to 0.0.0.0"),
            ("advertised.listeners=CONTROLLER://h:1", "must advertise at least one"),
            ("inter.broker.listener.name=OTHER", "must be advertised"),
            ("inter.broker.listener.name=CONTROLLER", "controllers' listener, not for brokers"),
            ("security.inter.broker.protocol=PLAINTEXT", "set only one of"),
            (
                "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:SSL",
                "only PLAINTEXT is there",
            ),
            ("listener.security.protocol.map=PLAINTEXT:TLS", "no security protocol"),
            ("max.connections.per.ip=0", "only if"),
            ("max.connections.per.ip.overrides=host", "no host:number"),
            ("log.retention.ms=0", "at least 1"),
            ("log.retention.hours=0", "at least 1"),
            ("log.dirs=/a,/a", "twice"),
            ("log.cleanup.policy=compact", "compact"),
            (
                "group.min.session.timeout.ms=9 group.max.session.timeout.ms=8",
                "no member could join",
            ),
            ("replica.fetch.wait.max.ms=40000", "must not be above replica.socket.timeout.ms"),
            ("queued.max.request.bytes=5", "at least socket.request.max.bytes"),
            ("flowstone.data.buffered=true", "for flowstoned dev"),
            ("flowstone.metrics.listener=9644", "expected host:port"),
            ("process.roles=broker,broker", "twice"),
            ("controller.quorum.bootstrap.servers=a:1,b:1", "one node for now"),
            ("num.partitions=0", "Value must be at least 1"),
            ("log.segment.bytes=1000", "Value must be at least 1048576"),
        ] {
            let set: Vec<&str> = set.split(' ').collect();
            let refused = load(&set).expect_err(want).to_string();
            assert!(refused.contains(want), "{set:?}: {refused}");
        }
    }

    #[test]
    fn what_is_allowed_is_allowed() {
        for set in [
            "max.connections.per.ip=0 max.connections.per.ip.overrides=127.0.0.1:5,::1:7",
            "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://[::1]:9092",
            "listeners=PLAINTEXT://:0,CONTROLLER://:0",
            "advertised.listeners=",
            "log.retention.ms=-1",
            "log.retention.ms=",
            "broker.id=1",
            "controller.quorum.voters=1@localhost:9093 controller.quorum.bootstrap.servers=",
            "flowstone.metrics.listener=",
            "log.cleanup.policy=",
            "ssl.client.auth=none",
            "metric.reporters=",
        ] {
            let set: Vec<&str> = set.split(' ').collect();
            assert!(load(&set).is_ok(), "{set:?}: {:?}", load(&set));
        }
    }

    #[test]
    fn an_unmapped_controller_listener_is_plaintext_by_default() {
        let text: String = SAMPLE
            .lines()
            .filter(|l| !l.starts_with("listener.security"))
            .map(|l| l.to_owned() + "\n")
            .collect();
        assert!(Config::load(Some(File { name: "f", text: &text }), &[]).is_ok());
    }

    #[test]
    fn a_late_heartbeat_is_warned_about() {
        let loaded = load(&["broker.heartbeat.interval.ms=5000"]).unwrap();
        assert!(loaded.warnings[0].contains("at most half"), "{:?}", loaded.warnings);
    }

    #[test]
    fn replicas_that_cannot_be_are_warned_about() {
        let bare: String = SAMPLE
            .lines()
            .filter(|l| !l.starts_with("offsets."))
            .map(|l| l.to_owned() + "\n")
            .collect();
        let loaded = Config::load(Some(File { name: "f", text: &bare }), &[]).unwrap();
        assert!(loaded.warnings[0].contains("offsets.topic.replication.factor is 3"));
    }

    /// Whatever is written, it is taken or refused: reading a checked text cannot fail.
    #[test]
    fn no_value_of_a_used_key_is_a_panic() {
        let used = crate::keys::server_keys().filter(|key| key.treatment == crate::Treatment::Used);
        for key in used {
            for value in ["", " ", "0", "-1", "2147483647", "a,b", "a:1", "x://:1", "nonsense"] {
                if let Ok(loaded) = load(&[&format!("{}={value}", key.name)]) {
                    loaded.config.topic(None);
                }
            }
        }
    }

    fn load(set: &[&str]) -> Result<Loaded, Problems> {
        let set: Vec<_> = set
            .iter()
            .map(|pair| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap())
            .collect();
        Config::load(Some(File { name: "server.properties", text: SAMPLE }), &set)
    }
}
