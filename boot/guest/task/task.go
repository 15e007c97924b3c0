//go:build linux

// Package task has containerd run containers: it makes the container (a record
// of a name, an OCI runtime and a specification), its task (a shim and the
// first process), and hears how tasks start and end.
//
// It calls containerd's gRPC services directly. containerd's own client knows
// images, snapshots, leases and transfers as well, and who imports it runs the
// initialization of all of that: on an emulated machine a program without it
// is there tenths of a second sooner, on every boot. Starting a service takes
// three calls instead of seven.
//
// Errors are those of github.com/containerd/errdefs: ask errdefs.IsNotFound
// and its like.
package task

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/services/events/v1"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

const (
	// runtime is the containerd plugin that runs containers: the shim of runc
	// and of everything that is called like runc.
	runtime = "io.containerd.runc.v2"

	// specType names an OCI specification in JSON among containerd's types.
	specType = "types.containerd.io/opencontainers/runtime-spec/1/Spec"

	// maxMessage is containerd's own limit of a message (its defaults package);
	// gRPC's is 4 MiB, which a list of many containers can exceed.
	maxMessage = 16 << 20
)

// ID names a container and its task: names are unique in a namespace only.
type ID struct{ Namespace, Name string }

// in returns ctx for the namespace, which travels as gRPC metadata.
func in(ctx context.Context, namespace string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
}

func (id ID) in(ctx context.Context) context.Context { return in(ctx, id.Namespace) }

// Client is a connection to one containerd. It is made again by itself when
// containerd was away; calls meanwhile fail.
type Client struct {
	conn       *grpc.ClientConn
	containers containers.ContainersClient
	tasks      tasks.TasksClient
	events     events.EventsClient
}

// Dial makes a client of the containerd with this socket. It fails only if
// that is no path: the connection is made by the first call.
func Dial(socket string) (*Client, error) {
	// A socket of this machine costs nothing to be tried often.
	again := grpc.ConnectParams{MinConnectTimeout: 10 * time.Second,
		Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}}
	conn, err := grpc.NewClient("unix:"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(again),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn, containers: containers.NewContainersClient(conn),
		tasks: tasks.NewTasksClient(conn), events: events.NewEventsClient(conn)}, nil
}

// Close ends the connection and every call that is under way.
func (c *Client) Close() error { return c.conn.Close() }

// List returns the names of a namespace's containers.
func (c *Client) List(ctx context.Context, namespace string) ([]string, error) {
	r, err := c.containers.List(in(ctx, namespace), &containers.ListContainersRequest{})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	names := make([]string, len(r.Containers))
	for i, container := range r.Containers {
		names[i] = container.ID
	}
	return names, nil
}

// Exists reports whether there is such a container, whatever its task does.
func (c *Client) Exists(ctx context.Context, id ID) (bool, error) {
	_, err := c.containers.Get(id.in(ctx), &containers.GetContainerRequest{ID: id.Name})
	if err = errgrpc.ToNative(err); err == nil || errdefs.IsNotFound(err) {
		return err == nil, nil
	}
	return false, err
}

// Create makes a container, without a task. Its specification is an OCI
// config.json, whose root path is absolute. One that exists already is an error
// that errdefs.IsAlreadyExists knows.
func (c *Client) Create(ctx context.Context, id ID, spec []byte) error {
	_, err := c.containers.Create(id.in(ctx), &containers.CreateContainerRequest{Container: &containers.Container{
		ID:      id.Name,
		Runtime: &containers.Container_Runtime{Name: runtime},
		Spec:    &anypb.Any{TypeUrl: specType, Value: spec},
	}})
	return errgrpc.ToNative(err)
}

// Delete removes a container that has no task.
func (c *Client) Delete(ctx context.Context, id ID) error {
	_, err := c.containers.Delete(id.in(ctx), &containers.DeleteContainerRequest{ID: id.Name})
	return errgrpc.ToNative(err)
}

// Streams are the files that a task's standard output and error go to. The
// shim opens and writes them. Empty ones are closed.
type Streams struct{ Stdout, Stderr string }

// CreateTask makes the task of a container: its namespaces, its mounts and its
// first process, which waits for [Client.Start].
func (c *Client) CreateTask(ctx context.Context, id ID, s Streams) (pid uint32, err error) {
	r, err := c.tasks.Create(id.in(ctx), &tasks.CreateTaskRequest{ContainerID: id.Name, Stdout: s.Stdout, Stderr: s.Stderr})
	if err != nil {
		return 0, errgrpc.ToNative(err)
	}
	return r.Pid, nil
}

// Start lets the first process of a task go.
func (c *Client) Start(ctx context.Context, id ID) error {
	_, err := c.tasks.Start(id.in(ctx), &tasks.StartRequest{ContainerID: id.Name})
	return errgrpc.ToNative(err)
}

// Kill sends a signal to a task's first process, or to all of its processes.
func (c *Client) Kill(ctx context.Context, id ID, sig syscall.Signal, all bool) error {
	_, err := c.tasks.Kill(id.in(ctx), &tasks.KillRequest{ContainerID: id.Name, Signal: uint32(sig), All: all})
	return errgrpc.ToNative(err)
}

// Wait waits for the end of a task's first process and returns its status. One
// that has ended and was not deleted is at its end.
func (c *Client) Wait(ctx context.Context, id ID) (status uint32, err error) {
	r, err := c.tasks.Wait(id.in(ctx), &tasks.WaitRequest{ContainerID: id.Name})
	if err != nil {
		return 0, errgrpc.ToNative(err)
	}
	return r.ExitStatus, nil
}

// DeleteTask removes a task that has ended, and returns its exit status. If that
// is at once, nobody may hear of its end: see [Event].
func (c *Client) DeleteTask(ctx context.Context, id ID) (status uint32, err error) {
	r, err := c.tasks.Delete(id.in(ctx), &tasks.DeleteTaskRequest{ContainerID: id.Name})
	if err != nil {
		return 0, errgrpc.ToNative(err)
	}
	return r.ExitStatus, nil
}

// RemoveTask kills a task in whatever state it is, waits for its end and
// removes it. One that is not there is no error.
func (c *Client) RemoveTask(ctx context.Context, id ID) error {
	err := c.Kill(ctx, id, syscall.SIGKILL, true)
	switch {
	case errdefs.IsNotFound(err): // it has ended, or never was: Wait and DeleteTask will tell
	case errdefs.IsFailedPrecondition(err): // it cannot be killed, as what was created and never started
	case err != nil:
		return fmt.Errorf("killing the task: %w", err)
	default:
		if _, err := c.Wait(ctx, id); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("waiting for the end of the task: %w", err)
		}
	}
	if _, err := c.DeleteTask(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("removing the task: %w", err)
	}
	return nil
}

// State is what a task is doing.
type State struct {
	Pid     uint32 // of the first process
	Running bool
	Stopped bool   // ended; neither is set while it is being made
	Status  uint32 // the exit status of one that has ended
}

// State asks for a task's state. A container without a task is not found.
func (c *Client) State(ctx context.Context, id ID) (State, error) {
	r, err := c.tasks.Get(id.in(ctx), &tasks.GetRequest{ContainerID: id.Name})
	if err != nil {
		return State{}, errgrpc.ToNative(err)
	}
	p := r.Process
	return State{Pid: p.GetPid(), Running: p.GetStatus() == task.Status_RUNNING,
		Stopped: p.GetStatus() == task.Status_STOPPED, Status: p.GetExitStatus()}, nil
}

// Event says that a task's first process was started or has ended, or that its
// container was removed. The end comes from the shim, which sends it beside
// everything else: of a task that is deleted as soon as it has ended it is lost
// now and then, with the shim. The removal comes from containerd, always.
type Event struct {
	ID      ID
	Pid     uint32
	Ended   bool
	Status  uint32 // the exit status of one that has ended
	Removed bool   // the container is gone; nothing else is known
}

// The topics of containerd's events that Follow hears.
const (
	topicStart  = "/tasks/start"
	topicExit   = "/tasks/exit"
	topicDelete = "/containers/delete"
)

// Follow calls hear for each event of every namespace, one after another, until
// ctx ends or containerd goes: that is its error. What happens before containerd
// has taken the subscription is not heard, and it does not tell when it has.
func (c *Client) Follow(ctx context.Context, hear func(Event)) error {
	stream, err := c.events.Subscribe(ctx, &events.SubscribeRequest{
		Filters: []string{`topic=="` + topicStart + `"`, `topic=="` + topicExit + `"`, `topic=="` + topicDelete + `"`}})
	for err == nil {
		envelope, failed := stream.Recv()
		if errors.Is(failed, io.EOF) {
			return fmt.Errorf("containerd ended the subscription: %w", failed)
		}
		if err = failed; err != nil {
			break
		}
		event, ours, bad := decode(envelope.GetTopic(), envelope.GetNamespace(), envelope.GetEvent().GetValue())
		if bad != nil {
			return fmt.Errorf("event %s: %w", envelope.GetTopic(), bad)
		}
		if ours {
			hear(event)
		}
	}
	return errgrpc.ToNative(err)
}

// decode reads an event. Not ours are those of processes that were brought in
// with exec.
func decode(topic, namespace string, value []byte) (e Event, ours bool, err error) {
	switch topic {
	case topicStart:
		var v apievents.TaskStart
		err = proto.Unmarshal(value, &v)
		return Event{ID: ID{namespace, v.ContainerID}, Pid: v.Pid}, err == nil, err
	case topicExit:
		var v apievents.TaskExit
		err = proto.Unmarshal(value, &v)
		return Event{ID: ID{namespace, v.ContainerID}, Pid: v.Pid, Ended: true, Status: v.ExitStatus},
			err == nil && v.ID == v.ContainerID, err
	case topicDelete:
		var v apievents.ContainerDelete
		err = proto.Unmarshal(value, &v)
		return Event{ID: ID{namespace, v.ID}, Removed: true}, err == nil, err
	}
	return Event{}, false, nil
}
