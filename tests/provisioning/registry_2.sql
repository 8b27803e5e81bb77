-- A registry as version 2 of its schema had it: one board of each state.
create table board (
    id                text    primary key,          -- painted on the board, 1..32 characters
    state             text    not null check (state in ('pending', 'enrolled', 'revoked', 'rejected', 'replaced')),
                      -- pending: the credential is signed and may be on the board; something is still missing:
                      -- that the board confirms it, or that a second person accepts the board
    sign_key          blob    not null unique,      -- x and y, 64 bytes
    agree_key         blob    not null,             -- x and y, 64 bytes
    tier              integer not null,             -- 0 software, 1 chip, 2 secure element
    model             text    not null,
    hardware          blob    not null,             -- machine.unique_id()
    credential        blob    not null,             -- the COSE_Sign1 that the board holds, byte for byte
    credential_digest blob    not null,             -- 16 bytes; the predecessor of its first report
    begun             integer not null,             -- Unix seconds: the credential was signed
    decision          integer not null,             -- 1: a second person must accept it
    delivered         integer,                      -- Unix seconds: the board confirmed
    enrolled          integer,                      -- Unix seconds: confirmed, and accepted if that was needed
    ended             integer,                      -- Unix seconds: revoked, rejected or replaced
    reason            text,                         -- why it ended
    replaced_by       text,                         -- the board that took its post
    check ((enrolled is null) or state <> 'pending'),
    check ((ended is null) = (state in ('pending', 'enrolled')))
) strict
;

create table hanging (                              -- which board hung at which post: never deleted
    board     text    not null,
    post      text    not null,                     -- the id of the post
    latitude  integer,                              -- WGS 84, 1e-7 degrees
    longitude integer,
    since     integer not null,                     -- Unix seconds
    until     integer,                              -- Unix seconds; null: it hangs there
    check ((latitude is null) = (longitude is null))
) strict
;
create unique index hangs on hanging (board) where until is null;
create table roster (
    gateway text    not null,
    version integer not null,                       -- one more for each roster of a gateway
    issued  integer not null,                       -- Unix seconds
    digest  blob    not null,                       -- SHA-256 of its payload, 32 bytes
    body    blob    not null,                       -- the COSE_Sign1
    primary key (gateway, version)
) strict;
create table if not exists roster_floor (           -- after a restore: what may have been given out since the backup
    version integer not null                        -- no roster gets a lower one
) strict;
insert into board values ('LE-1', 'enrolled', x'aa', x'ab', 0, 'pico', x'01', x'02', x'03', 10, 0, 20, 20, null, null, null);
insert into board values ('LE-2', 'pending', x'ba', x'bb', 0, 'pico', x'01', x'02', x'03', 10, 0, null, null, null, null, null);
insert into board values ('LE-3', 'revoked', x'ca', x'cb', 0, 'pico', x'01', x'02', x'03', 10, 0, 20, 20, 30, 'stolen', null);
insert into board values ('LE-4', 'rejected', x'da', x'db', 0, 'pico', x'01', x'02', x'03', 10, 0, 20, null, 31, 'rejected', null);
insert into board values ('LE-5', 'replaced', x'ea', x'eb', 0, 'pico', x'01', x'02', x'03', 10, 0, 20, 20, 32, 'replaced by LE-1', 'LE-1');
insert into hanging values ('LE-1', 'P-1', 481, 115, 20, null);
insert into hanging values ('LE-5', 'P-1', 481, 115, 15, 20);
insert into roster values ('gw', 1, 40, zeroblob(32), x'05');
insert into roster_floor values (10000);
pragma user_version = 2;
