"""What is never lost: events, the write-ahead log, the journal, and what is folded from them.

The rooms. Each leans on its own group and on those above it, and knows nothing of those below.

ground     errors          everything finn can say went wrong, drawn as a tree
           values          what every floor calls the data that it passes on
           clock           time, ids and randomness: the one place that asks the machine for them
           disk            the local disk, as far as durability depends on it
           lock            one process for one log
           quarantine      where bytes go that cannot be used where they were
           redact          the secret values that never get into a record
           measure         what is counted and measured, for whoever wants to know

log        frame           the bytes of one line
           scan            reads segments, whatever state they are in
           wal             records in, durable records out, in one order
           recovery        what state a log is in, and its repair

state      events          what can happen, and what it is once it is durable
           upcast          old versions of an event, lifted to today's
           blobs           bytes that are named by their hash
           chunks          sealed message bodies
           codec           records as JSON, and back
           fold            the only way state changes
           breaker         when to leave something alone that keeps failing, and what of that the log says
           streams         where the bodies of a stream are
           reigns          which writer had which epoch, from which seq on
           snapshot        folded state on disk, so that a start replays little
           needs           what stored bytes need besides themselves
           sealed          finished segments that a snapshot has in its state: indexed, not folded
           bodies          reads a stream, from its chunks and from its tail in the log
           replay          from the files of the data directory to the state they mean
           origin          where a start has its state from
           absent          what this history needs and the local disk does not have
           pruning         which segments nobody needs any more
           runs            the log's own frames, as they go to the store
           level           what lies between a record that is durable here and one that is seen
           subscription    one reader's view of a stream
           upkeep          seals, takes snapshots and prunes, as they fall due
           journal         the one door to the log

files      limits          which files are kept as records, and which are not
           lanes           threads side by side for what waits for a disk or a store
           folder          a folder that others write in while we do
           files           what changed below a root becomes part of the log, and back

beads      rfc3339         times as beads have them
           bead            one bead: a tracked issue, as a line of br's file
           labels          labels of beads, and the states that some of them are
           ready           what can be worked on, what waits, and what lies still
           show            beads as br prints them
           bead_ids        the names of new beads, made as br makes them
           edges           what a bead depends on
           changes         what may become of beads: pure decisions
           own_beads       the beads that finn keeps by itself, and what it notices
           amends          what contradicts itself in the beads, and how each is put right
           issues          the text of the beads' file
           merge           three versions of the beads become one
           beads           tracked work: the fold, and the one door to it
           bead_file       the file: written from the log, read where somebody else wrote it

store      store           where objects are kept: create-if-absent, put, get, list, delete
           stores          the stores there are: file, memory, s3 (with its bucket)
           probe           whether a store keeps the promise that fencing leans on
           layout          the names of the replica's objects, and their bytes
           segment         frames that come from elsewhere: proven, cut, made a segment of the log
           remote          what a store holds, as one look finds it

replica    claim           taking the log over
           replica         the log on its way to the store
           compaction      the tail put together
           collection      what nobody needs any more goes from the store
           orphans         what a fenced writer had acknowledged: kept, found, brought in
           standby         what a fenced process does
           unfenced        where a store takes no conditions: a prefix for every writer

recovery   shelf           what the store holds, as far as a past can be made of it
           restoration     a log made from it
           relation        how the log here stands to the one in the store
           ancestry        what one history is to another, of which only the end is known
           beside          git, where it is further on than a store that answers
           swap            a restored log takes the place of the one that is here
           splice          lost records, put back from the store
           cascade         where a start has its past from: looks at all, takes the best, claims it
           drill           a restoration for the sake of seeing that it works
           audit           whether the store proves itself

archive    git             runs git, and is the only place that does
           picture         the agent at one seq, as it is archived
           tree            what a commit holds
           retrieval       a data directory from a commit
           archive         commits, pushes, and what becomes of a remote that moved
"""
