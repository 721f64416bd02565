// A short life of a cluster, against a broker of Apache Kafka 4.3.1 that was formatted with --standalone:
//
//   java -cp 'libs/*' kafka.tools.StorageTool format --standalone -t MkU3OEVBNTcwNTJENDM2Qg -c server.properties
//   java -cp 'libs/*' kafka.Kafka server.properties &
//   java -cp 'libs/*' Life.java localhost:9092
//
// with these lines in server.properties beside those of Kafka's own sample:
//
//   authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
//   super.users=User:ANONYMOUS
//   metadata.log.max.snapshot.interval.ms=5000
//
// Then, some 8 s later, SIGTERM. Of __cluster_metadata-0 the log and the last snapshot were kept.

import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.config.ConfigResource.Type;
import org.apache.kafka.common.quota.*;
import org.apache.kafka.common.resource.*;

public class Life {
    static Collection<AlterConfigOp> set(String key, String value) {
        return List.of(new AlterConfigOp(new ConfigEntry(key, value), AlterConfigOp.OpType.SET));
    }

    public static void main(String[] args) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0]))) {
            short one = 1;
            admin.createTopics(List.of(
                new NewTopic("orders", 3, one).configs(Map.of("retention.ms", "1000", "cleanup.policy", "delete")),
                new NewTopic("gone", 1, one),
                new NewTopic("manual", Map.of(0, List.of(1), 1, List.of(1))))).all().get();
            admin.createPartitions(Map.of("orders", NewPartitions.increaseTo(5))).all().get();
            admin.deleteTopics(List.of("gone")).all().get();
            admin.incrementalAlterConfigs(Map.of(
                new ConfigResource(Type.TOPIC, "manual"), set("segment.ms", "5000"),
                new ConfigResource(Type.BROKER, ""), set("log.cleaner.threads", "2"),
                new ConfigResource(Type.BROKER, "1"), set("background.threads", "12"),
                new ConfigResource(Type.GROUP, "g"), set("consumer.session.timeout.ms", "50000"))).all().get();
            admin.alterClientQuotas(List.of(
                new ClientQuotaAlteration(new ClientQuotaEntity(Map.of("user", "alice")),
                    List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1024.0))),
                new ClientQuotaAlteration(new ClientQuotaEntity(Collections.singletonMap("client-id", null)),
                    List.of(new ClientQuotaAlteration.Op("request_percentage", 50.0))))).all().get();
            admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion("alice",
                new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), "secret".getBytes(), "salt".getBytes()))).all().get();
            admin.createAcls(List.of(new AclBinding(
                new ResourcePattern(ResourceType.TOPIC, "orders", PatternType.LITERAL),
                new AccessControlEntry("User:bob", "*", AclOperation.READ, AclPermissionType.ALLOW)))).all().get();
        }
        String serializer = "org.apache.kafka.common.serialization.StringSerializer";
        try (Producer<String, String> producer = new KafkaProducer<>(Map.of(
            "bootstrap.servers", args[0], "key.serializer", serializer, "value.serializer", serializer))) {
            producer.send(new ProducerRecord<>("orders", "key", "value")).get(); // Idempotent: takes producer ids.
        }
    }
}
