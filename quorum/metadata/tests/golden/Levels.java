// Writes what each metadata.version of Kafka has, and each feature's levels: a line each. With the jars of
// org.apache.kafka:kafka-server-common:4.3.1 and what it depends on in libs/:
//
//   java -cp 'libs/*' Levels.java > apache-4.3.1/levels.txt

import org.apache.kafka.server.common.*;

public class Levels {
    public static void main(String[] args) {
        for (MetadataVersion v : MetadataVersion.VERSIONS) {
            if (v.featureLevel() > MetadataVersion.LATEST_PRODUCTION.featureLevel()) continue;
            System.out.println("metadata.version " + v.featureLevel() + " " + v + " changed=" + v.didMetadataChange()
                + " migration=" + v.isMigrationSupported() + " scram=" + v.isScramSupported() + " transactions=" + v.isMetadataTransactionSupported()
                + " tokens=" + v.isDelegationTokenSupported() + " controllers=" + v.isControllerRegistrationSupported()
                + " directories=" + v.isDirectoryAssignmentSupported() + " elr=" + v.isElrSupported() + " cordoned=" + v.isCordonedLogDirsSupported()
                + " partition=" + v.partitionRecordVersion() + " change=" + v.partitionChangeRecordVersion() + " broker=" + v.registerBrokerRecordVersion());
        }
        for (Feature feature : Feature.PRODUCTION_FEATURES) {
            for (FeatureVersion level : feature.featureVersions()) {
                if (level.featureLevel() > feature.latestProduction()) continue;
                System.out.println(feature.featureName() + " " + level.featureLevel() + " " + level.bootstrapMetadataVersion() + " " + level.dependencies());
            }
        }
    }
}
