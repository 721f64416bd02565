import java.io.*;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.*;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.common.protocol.types.*;
import org.apache.kafka.common.record.internal.MemoryRecords;

/**
 * Random requests and responses as Kafka's own generated classes have them: {@code Instances SEED COUNT KEY...}, COUNT of each kind and version that
 * Kafka 4.3.1 has of these APIs, its unstable versions left out. A line each,
 * {@code KIND KEY VERSION CORRELATION CLIENT FRAME BODY DROPPED WRITES...}: CLIENT is the client id or {@code null}; FRAME is header and body as some
 * client may write them (defaults that need not be told are told, unknown tagged fields among the others); BODY is what Kafka's class writes after it has read that, and DROPPED the same
 * without unknown tagged fields. WRITES are {@code VERSION=BODY}: what it writes of the instance in other versions, {@code VERSION=-WHY} where it refuses.
 * Bytes are hexadecimal.
 */
public final class Instances {
    static Random random;
    static boolean withUnknownTags;

    public static void main(String[] args) {
        random = new Random(Long.parseLong(args[0]));
        int count = Integer.parseInt(args[1]);
        PrintStream out = new PrintStream(new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 1 << 20));
        for (String word : Arrays.asList(args).subList(2, args.length)) {
            short key = Short.parseShort(word);
            ApiMessageType type = ApiMessageType.fromApiKey(key);
            for (String kind : new String[] {"request", "response"})
                for (short version = type.lowestSupportedVersion(); version <= type.highestSupportedVersion(false); version++)
                    for (int i = 0; i < count; i++) out.println(instance(kind, type, version, i));
        }
        out.flush();
    }

    static String instance(String kind, ApiMessageType type, short version, int number) {
        boolean isRequest = kind.equals("request");
        withUnknownTags = number % 4 == 3;
        byte[] sent = bytes((isRequest ? type.requestSchemas() : type.responseSchemas())[version]);
        ApiMessage message = isRequest ? type.newRequest() : type.newResponse();
        ByteBuffer in = ByteBuffer.wrap(sent);
        message.read(new ByteBufferAccessor(in), version);
        if (in.hasRemaining()) throw new IllegalStateException(in.remaining() + " bytes are left of " + message);
        byte[] body = write(message, version);

        int correlation = random.nextInt();
        String client = random.nextInt(4) == 0 ? null : string();
        ApiMessage header;
        short headerVersion;
        if (isRequest) {
            headerVersion = type.requestHeaderVersion(version);
            header = new RequestHeaderData().setRequestApiKey(type.apiKey()).setRequestApiVersion(version).setCorrelationId(correlation).setClientId(client);
            if (headerVersion >= 2 && withUnknownTags) header.unknownTaggedFields().add(unknown());
        } else {
            headerVersion = type.responseHeaderVersion(version);
            header = new ResponseHeaderData().setCorrelationId(correlation);
        }
        StringBuilder line = new StringBuilder(kind + " " + type.apiKey() + " " + version + " " + correlation + " ");
        line.append(client == null ? "null" : "=" + hex(client.getBytes(StandardCharsets.UTF_8)));
        line.append(" ").append(hex(write(header, headerVersion))).append(hex(sent)).append(" ").append(hex(body)).append(" ");
        if (withUnknownTags) {
            drop(message);
            return line.append(hex(write(message, version))).toString();
        }
        line.append(hex(body));
        for (short other = type.lowestSupportedVersion(); other <= type.highestSupportedVersion(false); other++) {
            if (other == version) continue;
            String written;
            try {
                written = hex(write(message, other));
            } catch (RuntimeException e) { // A field that it does not have, or a null that it cannot say.
                written = "-" + String.valueOf(e.getMessage()).replaceAll("\\s+", "_");
            }
            line.append(" ").append(other).append("=").append(written);
        }
        return line.toString();
    }

    static byte[] write(ApiMessage message, short version) { return MessageUtil.toByteBufferAccessor(message, version).buffer().array(); }

    static String hex(byte[] bytes) { return HexFormat.of().formatHex(bytes); }

    /** Random bytes of this form. */
    static byte[] bytes(Schema schema) {
        Object value = value(schema);
        ByteBuffer out = ByteBuffer.allocate(schema.sizeOf(value));
        schema.write(out, value);
        return out.array();
    }

    static Object value(Type type) {
        if (type.isNullable() && random.nextInt(5) == 0) return null;
        if (type instanceof Schema schema) {
            Struct struct = new Struct(schema);
            for (BoundField field : schema.fields()) struct.set(field, value(field.def.type));
            return struct;
        }
        if (type instanceof TaggedFields tagged) {
            NavigableMap<Integer, Object> values = new TreeMap<>();
            tagged.fields().forEach((tag, field) -> {
                if (random.nextInt(3) != 0) values.put(tag, value(field.type));
            });
            if (withUnknownTags && random.nextBoolean()) {
                RawTaggedField unknown = unknown();
                values.put(unknown.tag(), unknown);
            }
            return values;
        }
        if (type.isArray()) {
            Object[] values = new Object[elements(type.arrayElementType().get())];
            for (int i = 0; i < values.length; i++) values[i] = value(type.arrayElementType().get());
            return values;
        }
        if (type == Type.BOOLEAN) return random.nextBoolean();
        if (type == Type.INT8) return (byte) number(8);
        if (type == Type.INT16) return (short) number(16);
        if (type == Type.UINT16) return (int) number(16) & 0xffff;
        if (type == Type.INT32) return (int) number(32);
        if (type == Type.UNSIGNED_INT32) return number(32) & 0xffffffffL;
        if (type == Type.INT64) return number(64);
        if (type == Type.FLOAT64) return random.nextDouble();
        if (type == Type.UUID) return random.nextInt(4) == 0 ? Uuid.ZERO_UUID : new Uuid(number(64), number(64));
        if (type == Type.STRING || type == Type.COMPACT_STRING || type == Type.NULLABLE_STRING || type == Type.COMPACT_NULLABLE_STRING) return string();
        byte[] bytes = new byte[length()];
        random.nextBytes(bytes);
        ByteBuffer buffer = ByteBuffer.wrap(bytes);
        return type.toString().contains("RECORDS") ? MemoryRecords.readableRecords(buffer) : buffer;
    }

    /** A tag that no version has, with any bytes. */
    static RawTaggedField unknown() {
        byte[] bytes = new byte[random.nextInt(4)];
        random.nextBytes(bytes);
        return new RawTaggedField(10_000 + random.nextInt(1000), bytes);
    }

    static long number(int bits) {
        long most = -1L >>> (65 - bits);
        return switch (random.nextInt(6)) {
            case 0 -> 0;
            case 1 -> -1;
            case 2 -> most;
            case 3 -> -most - 1;
            case 4 -> random.nextInt(100);
            default -> random.nextLong() >> (64 - bits);
        };
    }

    /** None, few, or so many that a compact length takes two bytes. */
    static int elements(Type of) {
        boolean many = !(of instanceof Schema) && random.nextInt(20) == 0;
        return many ? 126 + random.nextInt(4) : random.nextInt(4);
    }

    static int length() {
        return switch (random.nextInt(8)) {
            case 0 -> 0;
            case 1 -> 126 + random.nextInt(4);
            case 2 -> 500 + random.nextInt(200);
            default -> random.nextInt(20);
        };
    }

    static String string() {
        if (random.nextInt(500) == 0) return "x".repeat(Short.MAX_VALUE);
        StringBuilder text = new StringBuilder();
        boolean plain = random.nextBoolean();
        for (int left = length(); left > 0; left--) text.appendCodePoint(plain ? 'a' + random.nextInt(26) : "\0aé€😀".codePointAt(random.nextInt(5)));
        return text.toString();
    }

    /** Unknown tagged fields are forgotten, at every depth. */
    static void drop(Message message) {
        message.unknownTaggedFields().clear();
        for (java.lang.reflect.Field field : message.getClass().getDeclaredFields()) {
            if (java.lang.reflect.Modifier.isStatic(field.getModifiers())) continue;
            field.setAccessible(true);
            try {
                Object value = field.get(message);
                for (Object part : value instanceof Collection<?> all ? all : Collections.singletonList(value))
                    if (part instanceof Message nested) drop(nested);
            } catch (IllegalAccessException e) {
                throw new IllegalStateException(e);
            }
        }
    }
}
