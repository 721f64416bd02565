import java.io.*;
import java.net.ServerSocket;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.*;
import org.apache.kafka.common.resource.*;

/**
 * A scripted life of a cluster of three Apache Kafka nodes, each broker and controller, so that their metadata log holds what real controllers write.
 *
 * java -cp 'libs/*' ClusterLife FOLDER: makes FOLDER, with the nodes' directories and logs in it, and leaves in FOLDER/metadata the log and the snapshots
 * of the node that lived through all of it. Some half a minute on two cores. Ends with status 1 where something did not happen in time.
 *
 * The cluster starts at metadata.version 3.9 and is upgraded to 4.3 on the way. "First" is the active controller, and dies; "second" is shut down after
 * it; "witness" lives on.
 */
public final class ClusterLife {
    static final int NODES = 3, SECONDS_MAX = 60;
    static final String SECRET = "life-secret";
    final Path folder;
    final Map<Integer, Process> processes = new TreeMap<>();
    final int[] plain = new int[NODES + 1], sasl = new int[NODES + 1], controller = new int[NODES + 1];
    final long start = System.nanoTime();
    Admin admin;

    ClusterLife(Path folder) { this.folder = folder; }

    public static void main(String[] args) throws Exception {
        ClusterLife life = new ClusterLife(Path.of(args[0]).toAbsolutePath());
        Runtime.getRuntime().addShutdownHook(new Thread(() -> life.processes.values().forEach(Process::destroyForcibly)));
        life.live();
        System.exit(0); // Clients' threads need no farewell.
    }

    void live() throws Exception {
        format();
        for (int node = 1; node <= NODES; node++) boot(node);
        admin = Admin.create(Map.of("bootstrap.servers", addresses(plain), "default.api.timeout.ms", SECONDS_MAX * 1000));
        until("three brokers", () -> brokers().size() == NODES);
        int first = admin.describeMetadataQuorum().quorumInfo().get().leaderId();
        int second = first % NODES + 1, witness = second % NODES + 1;
        tell("the active controller is node " + first);

        topics(first, second, witness);
        configs(first);
        quotas();
        credentials();
        acls();
        tokens();
        produce("orders", 10, 10);
        features();
        tell("upgraded");

        death(first, second);
        shutdown(first, second, witness);
        directories(witness);
        end(first, second);
        keep(witness);
        tell("done");
    }

    // What happens.

    void topics(int first, int second, int witness) throws Exception {
        admin.createTopics(List.of(
            new NewTopic("orders", 6, (short) 3).configs(Map.of("retention.ms", "86400000", "cleanup.policy", "delete")),
            new NewTopic("gone", 3, (short) 2).configs(Map.of("segment.ms", "5000")),
            new NewTopic("alone", Map.of(0, List.of(first), 1, List.of(second), 2, List.of(witness), 3, List.of(witness), 4, List.of(witness))),
            new NewTopic("pairs", Map.of(0, List.of(first, second), 1, List.of(second, witness), 2, List.of(witness, first)))
                .configs(Map.of("min.insync.replicas", "2")),
            // Its follower cannot keep up once it has fallen behind: what it needs for an unclean election.
            new NewTopic("unclean", Map.of(0, List.of(second, first))).configs(Map.of("follower.replication.throttled.replicas", "*")),
            new NewTopic("region.eu_west-1", 2, (short) 1))).all().get();
        admin.createPartitions(Map.of("orders", NewPartitions.increaseTo(8, List.of(List.of(1, 2, 3), List.of(3, 2, 1))))).all().get();
        admin.createTopics(List.of(new NewTopic("many", 150, (short) 3))).all().get();
        until("all partitions have leaders", () -> describe("many").partitions().stream().allMatch(p -> p.isr().size() == NODES));
        admin.deleteTopics(List.of("gone")).all().get();
    }

    void configs(int node) throws Exception {
        alter(ConfigResource.Type.TOPIC, "orders", AlterConfigOp.OpType.SET, "max.message.bytes", "2000000");
        alter(ConfigResource.Type.TOPIC, "orders", AlterConfigOp.OpType.APPEND, "cleanup.policy", "compact");
        alter(ConfigResource.Type.TOPIC, "orders", AlterConfigOp.OpType.DELETE, "retention.ms", null);
        alter(ConfigResource.Type.TOPIC, "region.eu_west-1", AlterConfigOp.OpType.SET, "compression.type", "zstd");
        alter(ConfigResource.Type.BROKER, "", AlterConfigOp.OpType.SET, "log.cleaner.threads", "2");
        alter(ConfigResource.Type.BROKER, "1", AlterConfigOp.OpType.SET, "background.threads", "12");
        alter(ConfigResource.Type.BROKER, "" + node, AlterConfigOp.OpType.SET, "follower.replication.throttled.rate", "1");
        alter(ConfigResource.Type.GROUP, "readers", AlterConfigOp.OpType.SET, "consumer.session.timeout.ms", "50000");
        alter(ConfigResource.Type.CLIENT_METRICS, "watch", AlterConfigOp.OpType.SET, "interval.ms", "60000");
        alter(ConfigResource.Type.CLIENT_METRICS, "watch", AlterConfigOp.OpType.SET, "metrics", "org.apache.kafka.producer.");
        alter(ConfigResource.Type.CLIENT_METRICS, "over", AlterConfigOp.OpType.SET, "interval.ms", "30000");
        alter(ConfigResource.Type.CLIENT_METRICS, "over", AlterConfigOp.OpType.DELETE, "interval.ms", null);
    }

    void quotas() throws Exception {
        Map<String, String> both = Map.of("user", "alice", "client-id", "c-1"), all = Collections.singletonMap("user", null);
        quota(Map.of("user", "alice"), "producer_byte_rate", 1024.0);
        quota(Map.of("user", "alice"), "consumer_byte_rate", 2048.0);
        quota(Map.of("client-id", "c-1"), "request_percentage", 50.5);
        quota(Map.of("ip", "127.0.0.9"), "connection_creation_rate", 7.0);
        quota(both, "controller_mutation_rate", 3.25);
        quota(all, "producer_byte_rate", 1e9);
        quota(all, "producer_byte_rate", null);
        quota(Map.of("user", "alice"), "consumer_byte_rate", null);
    }

    void credentials() throws Exception {
        ScramCredentialInfo weak = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), strong = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 8192);
        // Kafka 4.3.1 forgets a credential that is set in the same delta in which the last other one of its mechanism goes (ScramDelta): carol stays, so bob is not the last.
        admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion("alice", weak, "a"), new UserScramCredentialUpsertion("bob", strong, "b"),
            new UserScramCredentialUpsertion("carol", strong, "c"))).all().get();
        admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion("alice", strong, "d"), new UserScramCredentialDeletion("bob", ScramMechanism.SCRAM_SHA_512))).all().get();
    }

    void acls() throws Exception {
        List<AclBinding> bindings = new ArrayList<>();
        bindings.add(acl(ResourceType.TOPIC, "orders", PatternType.LITERAL, "User:bob", "*", AclOperation.READ, AclPermissionType.ALLOW));
        bindings.add(acl(ResourceType.TOPIC, "ord", PatternType.PREFIXED, "User:bob", "10.0.0.1", AclOperation.WRITE, AclPermissionType.DENY));
        bindings.add(acl(ResourceType.GROUP, "*", PatternType.LITERAL, "User:*", "*", AclOperation.DESCRIBE, AclPermissionType.ALLOW));
        bindings.add(acl(ResourceType.CLUSTER, "kafka-cluster", PatternType.LITERAL, "User:carol", "*", AclOperation.ALTER_CONFIGS, AclPermissionType.ALLOW));
        bindings.add(acl(ResourceType.TRANSACTIONAL_ID, "t", PatternType.LITERAL, "User:dave", "*", AclOperation.ALL, AclPermissionType.ALLOW));
        admin.createAcls(bindings).all().get();
        admin.deleteAcls(List.of(bindings.get(4).toFilter())).all().get();
    }

    void tokens() throws Exception {
        String jaas = "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"admin\" password=\"" + SECRET + "\";";
        try (Admin known = Admin.create(Map.of("bootstrap.servers", addresses(sasl), "security.protocol", "SASL_PLAINTEXT", "sasl.mechanism", "PLAIN", "sasl.jaas.config", jaas))) {
            CreateDelegationTokenOptions options = new CreateDelegationTokenOptions()
                .renewers(List.of(new org.apache.kafka.common.security.auth.KafkaPrincipal("User", "alice"), new org.apache.kafka.common.security.auth.KafkaPrincipal("User", "admin")));
            var kept = known.createDelegationToken(options).delegationToken().get();
            var ended = known.createDelegationToken().delegationToken().get();
            known.createDelegationToken().delegationToken().get();
            until("a token is known to all", () -> known.describeDelegationToken().delegationTokens().get().size() == 3);
            known.renewDelegationToken(kept.hmac(), new RenewDelegationTokenOptions().renewTimePeriodMs(3_600_000)).expiryTimestamp().get();
            known.expireDelegationToken(ended.hmac(), new ExpireDelegationTokenOptions().expiryTimePeriodMs(-1)).expiryTimestamp().get();
        }
    }

    void features() throws Exception {
        feature("metadata.version", 30, FeatureUpdate.UpgradeType.UPGRADE);
        for (String name : List.of("eligible.leader.replicas.version", "group.version", "share.version", "streams.version", "transaction.version"))
            feature(name, 1, FeatureUpdate.UpgradeType.UPGRADE);
        feature("transaction.version", 2, FeatureUpdate.UpgradeType.UPGRADE);
        feature("streams.version", 0, FeatureUpdate.UpgradeType.SAFE_DOWNGRADE);
    }

    /** The active controller dies; another takes over; it returns, and stays behind in one partition. */
    void death(int first, int second) throws Exception {
        processes.get(first).destroyForcibly().waitFor();
        until("the death is noticed", () -> isr("unclean", 0).equals(List.of(second)) && isr("pairs", 0).equals(List.of(second)));
        tell("node " + first + " is dead");
        produce("unclean", 3, 1_000_000);
        boot(first);
        until("it is back", () -> brokers().size() == NODES && isr("pairs", 0).size() == 2 && isr("many", 0).size() == NODES);
        tell("node " + first + " is back");
    }

    /** A controlled shutdown: leaders move, the only member of an ISR goes (KIP-966), reassignments wait for who is not there. */
    void shutdown(int first, int second, int witness) throws Exception {
        processes.get(second).destroy();
        processes.get(second).waitFor(SECONDS_MAX, TimeUnit.SECONDS);
        until("the shutdown is noticed", () -> brokers().size() == NODES - 1 && leader("unclean", 0) < 0);
        tell("node " + second + " is down");
        TopicPartition unclean = new TopicPartition("unclean", 0);
        admin.electLeaders(ElectionType.UNCLEAN, Set.of(unclean)).all().get();
        until("the unclean leader leads", () -> leader("unclean", 0) == first);
        reassign("alone", 2, witness, second);
        reassign("alone", 3, second);
        reassign("alone", 4, first);
        reassign("many", 7, first);
        reassign("orders", 0, witness, first);
        until("a reassignment is done", () -> describe("alone").partitions().get(4).replicas().size() == 1 && leader("alone", 4) == first);
        // Pending reassignments and eligible replicas stand in a snapshot: these records make the next one due.
        admin.createTopics(List.of(new NewTopic("filler", 250, (short) 2))).all().get();
        alter(ConfigResource.Type.TOPIC, "pairs", AlterConfigOp.OpType.SET, "min.insync.replicas", "1");
        TopicPartition cancelled = new TopicPartition("alone", 3);
        admin.alterPartitionReassignments(Map.of(cancelled, Optional.empty())).all().get();
        boot(second);
        until("it is back", () -> brokers().size() == NODES && isr("alone", 2).size() == 2 && isr("many", 0).size() == NODES);
        admin.electLeaders(ElectionType.PREFERRED, null).partitions().get();
        tell("node " + second + " is back");
    }

    /** A replica moves between the log directories of a node (KIP-858), and one of these takes no more (KIP-1066). */
    void directories(int node) throws Exception {
        TopicPartitionReplica replica = new TopicPartitionReplica("alone", 2, node);
        for (String name : List.of("a", "b")) admin.alterReplicaLogDirs(Map.of(replica, folder.resolve(node + "/" + name).toString())).all().get();
        alter(ConfigResource.Type.BROKER, "" + node, AlterConfigOp.OpType.SET, "cordoned.log.dirs", folder.resolve(node + "/b").toString());
        produce("orders", 10, 10);
        admin.deleteTopics(List.of("filler")).all().get();
    }

    void end(int first, int second) throws Exception {
        processes.get(second).destroyForcibly().waitFor();
        until("the end is noticed", () -> brokers().size() == NODES - 1);
        reassign("alone", 4, first, second); // Waits for somebody who will not come.
        admin.unregisterBroker(second).all().get();
        Thread.sleep(1_000); // A snapshot may be on its way.
    }

    // How it is done.

    void format() throws Exception {
        Uuid[] directories = new Uuid[NODES + 1];
        for (int node = 1; node <= NODES; node++) {
            directories[node] = Uuid.randomUuid();
            for (int[] ports : List.of(plain, sasl, controller)) {
                try (ServerSocket free = new ServerSocket(0)) { ports[node] = free.getLocalPort(); }
            }
        }
        String voters = IntStream.rangeClosed(1, NODES).mapToObj(node -> node + "@127.0.0.1:" + controller[node] + ":" + directories[node]).collect(Collectors.joining(","));
        for (int node = 1; node <= NODES; node++) {
            Path home = Files.createDirectories(folder.resolve("" + node)), config = home.resolve("server.properties");
            Files.writeString(config, properties(node, home));
            ByteArrayOutputStream told = new ByteArrayOutputStream();
            String[] args = {"format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", config.toString(), "--release-version", "3.9", "--initial-controllers", voters};
            if (kafka.tools.StorageTool.execute(args, new PrintStream(told)) != 0) throw new IllegalStateException(told.toString());
        }
    }

    String properties(int node, Path home) {
        String listeners = "PLAIN://127.0.0.1:" + plain[node] + ",SASL://127.0.0.1:" + sasl[node] + ",CONTROLLER://127.0.0.1:" + controller[node];
        return String.join("\n",
            "process.roles=broker,controller",
            "node.id=" + node,
            "broker.rack=rack-" + node,
            "controller.quorum.bootstrap.servers=" + addresses(controller),
            "listeners=" + listeners,
            "advertised.listeners=" + listeners,
            "controller.listener.names=CONTROLLER",
            "inter.broker.listener.name=PLAIN",
            "listener.security.protocol.map=PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms=PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_admin=\"" + SECRET + "\";",
            "delegation.token.secret.key=" + SECRET,
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS;User:admin",
            "log.dirs=" + home.resolve("a") + "," + home.resolve("b"),
            "metadata.log.max.record.bytes.between.snapshots=15000",
            "broker.session.timeout.ms=3000",
            "broker.heartbeat.interval.ms=300",
            "controller.quorum.fetch.timeout.ms=1500",
            "controller.quorum.election.timeout.ms=500",
            "auto.leader.rebalance.enable=false",
            "offsets.topic.num.partitions=1",
            "num.network.threads=2",
            "num.io.threads=2",
            "log.cleaner.dedupe.buffer.size=8388608",
            "");
    }

    void boot(int node) throws IOException {
        Path home = folder.resolve("" + node);
        ProcessBuilder java = new ProcessBuilder(ProcessHandle.current().info().command().orElse("java"), "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Dlog4j2.configurationFile=" + System.getProperty("log4j2.configurationFile", ""), "-cp", System.getProperty("java.class.path"),
            "kafka.Kafka", home.resolve("server.properties").toString());
        File log = home.resolve("log").toFile();
        processes.put(node, java.redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.appendTo(log)).start());
    }

    void keep(int node) throws Exception {
        for (Process process : processes.values()) process.destroyForcibly().waitFor();
        Path kept = Files.createDirectories(folder.resolve("metadata"));
        try (DirectoryStream<Path> files = Files.newDirectoryStream(folder.resolve(node + "/a/__cluster_metadata-0"), "*.{log,checkpoint}")) {
            for (Path file : files) Files.copy(file, kept.resolve(file.getFileName()), StandardCopyOption.REPLACE_EXISTING);
        }
    }

    void alter(ConfigResource.Type type, String name, AlterConfigOp.OpType op, String key, String value) throws Exception {
        admin.incrementalAlterConfigs(Map.of(new ConfigResource(type, name), List.of(new AlterConfigOp(new ConfigEntry(key, value), op)))).all().get();
    }

    void quota(Map<String, String> entity, String key, Double value) throws Exception {
        admin.alterClientQuotas(List.of(new ClientQuotaAlteration(new ClientQuotaEntity(entity), List.of(new ClientQuotaAlteration.Op(key, value))))).all().get();
    }

    void feature(String name, int level, FeatureUpdate.UpgradeType type) throws Exception {
        admin.updateFeatures(Map.of(name, new FeatureUpdate((short) level, type)), new UpdateFeaturesOptions()).all().get();
    }

    void reassign(String topic, int partition, Integer... to) throws Exception {
        admin.alterPartitionReassignments(Map.of(new TopicPartition(topic, partition), Optional.of(new NewPartitionReassignment(List.of(to))))).all().get();
    }

    static AclBinding acl(ResourceType type, String name, PatternType pattern, String who, String host, AclOperation operation, AclPermissionType permission) {
        return new AclBinding(new ResourcePattern(type, name, pattern), new AccessControlEntry(who, host, operation, permission));
    }

    void produce(String topic, int count, int bytes) throws Exception {
        String serializer = "org.apache.kafka.common.serialization.ByteArraySerializer";
        try (Producer<byte[], byte[]> producer = new KafkaProducer<>(Map.of("bootstrap.servers", addresses(plain), "key.serializer", serializer, "value.serializer", serializer))) {
            for (int record = 0; record < count; record++) producer.send(new ProducerRecord<>(topic, new byte[] {1}, new byte[bytes])).get();
        }
    }

    String addresses(int[] ports) {
        return IntStream.rangeClosed(1, NODES).mapToObj(node -> "127.0.0.1:" + ports[node]).collect(Collectors.joining(","));
    }

    Collection<Node> brokers() throws Exception { return admin.describeCluster().nodes().get(); }

    TopicDescription describe(String topic) throws Exception { return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic); }

    List<Integer> isr(String topic, int partition) throws Exception { return describe(topic).partitions().get(partition).isr().stream().map(Node::id).sorted().toList(); }

    int leader(String topic, int partition) throws Exception {
        Node leader = describe(topic).partitions().get(partition).leader();
        return leader == null ? -1 : leader.id();
    }

    void until(String what, Callable<Boolean> done) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(SECONDS_MAX);
        Exception last = null;
        while (System.nanoTime() < deadline) {
            try {
                if (done.call()) return;
            } catch (ExecutionException e) {
                last = e; // Somebody is not there yet.
            }
            Thread.sleep(100);
        }
        throw new IllegalStateException(what + " did not come true within " + SECONDS_MAX + " s", last);
    }

    void tell(String what) { System.out.printf("%.1f s: %s%n", (System.nanoTime() - start) / 1e9, what); }
}
