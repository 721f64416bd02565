// Writes every metadata record of Kafka, in every version, with values that tell their field's name:
// a line each, "type version hex". With the jars of org.apache.kafka:kafka-metadata:4.3.1 and what it
// depends on in libs/:
//
//   java -cp 'libs/*' Records.java > apache-4.3.1/records.txt
//
// A string holds its field's name; a number 10 + the sum of the name's characters modulo 90, an element of
// a list that plus its index; an id that number; a flag is true.

import java.lang.reflect.*;
import java.nio.charset.StandardCharsets;
import java.util.*;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.errors.UnsupportedVersionException;
import org.apache.kafka.common.metadata.MetadataRecordType;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.server.common.ApiMessageAndVersion;
import org.apache.kafka.metadata.MetadataRecordSerde;

public class Records {
    public static void main(String[] args) throws Exception {
        for (MetadataRecordType type : MetadataRecordType.values()) {
            for (short version = type.lowestSupportedVersion(); version <= type.highestSupportedVersion(); version++) {
                ApiMessage message = type.newMetadataRecord();
                fill(message, message, version, type);
                System.out.println(type.id() + " " + version + " " + HexFormat.of().formatHex(write(message, version)));
            }
        }
    }

    static byte[] write(ApiMessage message, short version) {
        ApiMessageAndVersion record = new ApiMessageAndVersion(message, version);
        MetadataRecordSerde serde = new MetadataRecordSerde();
        ObjectSerializationCache cache = new ObjectSerializationCache();
        byte[] bytes = new byte[serde.recordSize(record, cache)];
        serde.write(record, cache, new ByteBufferAccessor(java.nio.ByteBuffer.wrap(bytes)));
        return bytes;
    }

    static int number(String name) {
        return 10 + name.chars().sum() % 90;
    }

    static void fill(Object target, ApiMessage root, short version, MetadataRecordType type) throws Exception {
        for (Field field : target.getClass().getDeclaredFields()) {
            if (Modifier.isStatic(field.getModifiers()) || field.getName().startsWith("_")
                || field.getName().equals("next") || field.getName().equals("prev")) continue;
            field.setAccessible(true);
            Object before = field.get(target);
            field.set(target, value(field.getName(), field.getGenericType(), root, version, type));
            try {
                if (target == root) write(root, version);
                else ((Message) target).size(new ObjectSerializationCache(), version);
            } catch (UnsupportedVersionException e) {
                field.set(target, before); // This version has no such field.
            }
        }
    }

    static Object value(String name, Type type, ApiMessage root, short version, MetadataRecordType recordType) throws Exception {
        int number = number(name);
        if (type == boolean.class) return true;
        if (type == byte.class) return (byte) number;
        if (type == short.class) return (short) number;
        if (type == int.class) return number;
        if (type == long.class) return (long) number;
        if (type == double.class) return number + 0.5;
        if (type == String.class) return name;
        if (type == byte[].class) return name.getBytes(StandardCharsets.UTF_8);
        if (type == Uuid.class) return new Uuid(0, number);
        if (type instanceof ParameterizedType list) {
            Type element = list.getActualTypeArguments()[0];
            if (element == Integer.class) return new ArrayList<>(List.of(number, number + 1));
            if (element == Uuid.class) return new ArrayList<>(List.of(new Uuid(0, number), new Uuid(0, number + 1)));
            if (element == String.class) return new ArrayList<>(List.of(name));
            Object nested = ((Class<?>) element).getConstructor().newInstance();
            fill(nested, root, version, recordType);
            return new ArrayList<>(List.of(nested));
        }
        // A collection class of its own, for structs with a map key.
        Class<?> collection = (Class<?>) type;
        Type element = ((ParameterizedType) collection.getGenericSuperclass()).getActualTypeArguments()[0];
        Object nested = ((Class<?>) element).getConstructor().newInstance();
        fill(nested, root, version, recordType);
        @SuppressWarnings("unchecked")
        Collection<Object> all = (Collection<Object>) collection.getConstructor().newInstance();
        all.add(nested);
        return all;
    }
}
