import java.io.*;
import java.lang.reflect.*;
import java.nio.ByteBuffer;
import java.util.*;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.metadata.MetadataRecordType;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.common.protocol.types.RawTaggedField;
import org.apache.kafka.metadata.MetadataRecordSerde;
import org.apache.kafka.server.common.ApiMessageAndVersion;

/**
 * Reads lines `KIND KEY VERSION HEX` (KIND: record, request, response) from standard input, passes each message through Kafka's own generated class,
 * and says of each that did not come back as the same bytes what became of it. Then a line for each type and version seen:
 * `KIND KEY VERSION COUNT`. Types and versions that Kafka has and nobody asked for: `missing KIND KEY VERSION`, of the keys that were seen.
 */
public final class RoundTrip {
    public static void main(String[] args) throws IOException {
        TreeMap<String, Integer> seen = new TreeMap<>();
        TreeMap<String, short[]> versions = new TreeMap<>();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ", -1);
            short key = Short.parseShort(words[1]), version = Short.parseShort(words[2]);
            try {
                byte[] back = words[0].equals("record") ? record(HexFormat.of().parseHex(words[3]), key, version) : rpc(words[0], key, version, HexFormat.of().parseHex(words[3]));
                if (!HexFormat.of().formatHex(back).equals(words[3])) System.out.println("CHANGED " + line + " to " + HexFormat.of().formatHex(back));
            } catch (RuntimeException e) {
                System.out.println("REFUSED " + line + ": " + e);
            }
            seen.merge(words[0] + " " + key + " " + version, 1, Integer::sum);
            versions.computeIfAbsent(words[0] + " " + key, type -> words[0].equals("record") ? versions(MetadataRecordType.fromId(key)) : versions(ApiKeys.forId(key)));
        }
        seen.forEach((type, count) -> System.out.println(type + " " + count));
        versions.forEach((type, range) -> {
            for (short version = range[0]; version <= range[1]; version++)
                if (!seen.containsKey(type + " " + version)) System.out.println("missing " + type + " " + version);
        });
        for (MetadataRecordType type : MetadataRecordType.values())
            if (!versions.containsKey("record " + type.id())) System.out.println("missing record " + type.id());
    }

    static short[] versions(MetadataRecordType type) { return new short[] {type.lowestSupportedVersion(), type.highestSupportedVersion()}; }

    static short[] versions(ApiKeys key) { return new short[] {key.messageType.lowestSupportedVersion(), key.messageType.highestSupportedVersion(true)}; }

    static byte[] record(byte[] bytes, short key, short version) {
        MetadataRecordSerde serde = new MetadataRecordSerde();
        ApiMessageAndVersion record = serde.read(new ByteBufferAccessor(ByteBuffer.wrap(bytes)), bytes.length);
        if (record.message().apiKey() != key || record.version() != version) throw new IllegalStateException("it is " + record);
        checkKnown(record.message());
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer back = ByteBuffer.allocate(serde.recordSize(record, cache));
        serde.write(record, cache, new ByteBufferAccessor(back));
        return back.array();
    }

    static byte[] rpc(String kind, short key, short version, byte[] bytes) {
        ApiMessageType type = ApiMessageType.fromApiKey(key);
        ApiMessage message = kind.equals("request") ? type.newRequest() : type.newResponse();
        ByteBuffer in = ByteBuffer.wrap(bytes);
        message.read(new ByteBufferAccessor(in), version);
        if (in.hasRemaining()) throw new IllegalStateException(in.remaining() + " bytes are left");
        checkKnown(message);
        return MessageUtil.toByteBufferAccessor(message, version).buffer().array();
    }

    /** A tagged field under a number that Kafka does not know would come back unchanged, too. */
    static void checkKnown(Message message) {
        for (Field field : message.getClass().getDeclaredFields()) {
            if (Modifier.isStatic(field.getModifiers())) continue;
            field.setAccessible(true);
            Object value;
            try {
                value = field.get(message);
            } catch (IllegalAccessException e) {
                throw new IllegalStateException(e);
            }
            for (Object part : value instanceof Collection<?> all ? all : Collections.singletonList(value)) {
                if (part instanceof RawTaggedField unknown) throw new IllegalStateException("unknown tag " + unknown.tag());
                if (part instanceof Message nested) checkKnown(nested);
            }
        }
    }
}
