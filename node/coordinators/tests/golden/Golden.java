import org.apache.kafka.coordinator.group.generated.*;
import org.apache.kafka.coordinator.group.*;
import org.apache.kafka.coordinator.common.runtime.*;
import org.apache.kafka.server.common.ApiMessageAndVersion;
import org.apache.kafka.common.Uuid;
import java.util.*;
/** Prints name, key and value of records as Kafka's own classes write them. kafka-4.3.1.txt is its output with
 *  org.apache.kafka:kafka-group-coordinator:4.3.1 and what it depends on in the class path. */
public class Golden {
  static String hex(byte[] b){ if(b==null) return "-"; StringBuilder s=new StringBuilder(); for(byte x:b) s.append(String.format("%02x",x)); return s.toString(); }
  static void p(String name, CoordinatorRecord r){ var s=new GroupCoordinatorRecordSerde(); System.out.println(name+" "+hex(s.serializeKey(r))+" "+hex(s.serializeValue(r))); }
  public static void main(String[] a){
    Uuid id=new Uuid(0x0123456789abcdefL,0x0011223344556677L);
    p("offset", GroupCoordinatorRecordHelpers.newOffsetCommitRecord("my-group","sizes",7,new OffsetAndMetadata(1234567890123L,OptionalInt.of(5),"note",1700000000000L,OptionalLong.empty(),id)));
    p("offset-plain", GroupCoordinatorRecordHelpers.newOffsetCommitRecord("","t",0,new OffsetAndMetadata(0L,OptionalInt.empty(),"",1700000000000L,OptionalLong.empty(),Uuid.ZERO_UUID)));
    p("offset-expiring", GroupCoordinatorRecordHelpers.newOffsetCommitRecord("g","t",1,new OffsetAndMetadata(9L,OptionalInt.of(3),"m",1700000000000L,OptionalLong.of(1700000002000L),id)));
    p("offset-tombstone", GroupCoordinatorRecordHelpers.newOffsetCommitTombstoneRecord("g","t",1));
    p("group-tombstone", GroupCoordinatorRecordHelpers.newGroupMetadataTombstoneRecord("g"));
    p("beginning", CoordinatorRecord.record(new GroupMetadataKey().setGroup("g"), new ApiMessageAndVersion(new GroupMetadataValue().setProtocol(null).setProtocolType("").setGeneration(0).setLeader(null).setCurrentStateTimestamp(1700000000000L).setMembers(List.of()),(short)4)));
    p("group", CoordinatorRecord.record(new GroupMetadataKey().setGroup("g"), new ApiMessageAndVersion(new GroupMetadataValue().setProtocol("range").setProtocolType("consumer").setGeneration(3).setLeader("c-00000000-0000-4000-8000-000000000001").setCurrentStateTimestamp(1700000003000L).setMembers(List.of(
      new GroupMetadataValue.MemberMetadata().setMemberId("c-00000000-0000-4000-8000-000000000001").setClientId("c").setClientHost("/127.0.0.1").setRebalanceTimeout(300000).setSessionTimeout(45000).setGroupInstanceId(null).setSubscription(new byte[]{1,2}).setAssignment(new byte[]{3}),
      new GroupMetadataValue.MemberMetadata().setMemberId("i-00000000-0000-4000-8000-000000000002").setClientId("").setClientHost("/127.0.0.1").setRebalanceTimeout(60000).setSessionTimeout(10000).setGroupInstanceId("i").setSubscription(new byte[]{4}).setAssignment(new byte[]{}))),(short)4)));
    // old versions, to be read
    for (short v=0; v<=4; v++) {
      p("offset-v"+v, CoordinatorRecord.record(new OffsetCommitKey().setGroup("g").setTopic("t").setPartition(2), new ApiMessageAndVersion(new OffsetCommitValue().setOffset(77).setMetadata("m").setCommitTimestamp(1000).setLeaderEpoch(v>=3?6:-1).setExpireTimestamp(v==1?5000:-1),v)));
      var m=new GroupMetadataValue.MemberMetadata().setMemberId("m").setClientId("c").setClientHost("/h").setSessionTimeout(10000).setSubscription(new byte[]{1}).setAssignment(new byte[]{2});
      if(v>=1) m.setRebalanceTimeout(20000); if(v>=3) m.setGroupInstanceId("i");
      p("group-v"+v, CoordinatorRecord.record(new GroupMetadataKey().setGroup("g"), new ApiMessageAndVersion(new GroupMetadataValue().setProtocol("range").setProtocolType("consumer").setGeneration(1).setLeader("m").setCurrentStateTimestamp(v>=2?1234:-1).setMembers(List.of(m)),v)));
    }
  }
}
