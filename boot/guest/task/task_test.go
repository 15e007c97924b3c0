//go:build linux

package task

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/services/events/v1"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// daemon answers as containerd would. A field is what a call leads to.
type daemon struct {
	containers.UnimplementedContainersServer
	events.UnimplementedEventsServer

	asked   []string // namespace, call and name, in order
	created *containers.Container
	task    *tasks.CreateTaskRequest
	state   *task.Process // nil: not found
	kill    error
	queue   []*types.Envelope
	end     error // of the subscription
}

func (d *daemon) note(ctx context.Context, what ...string) {
	md, _ := metadata.FromIncomingContext(ctx)
	d.asked = append(d.asked, strings.Join(append(md.Get("containerd-namespace"), what...), " "))
}

func (d *daemon) Create(ctx context.Context, r *containers.CreateContainerRequest) (*containers.CreateContainerResponse, error) {
	d.note(ctx, "create", r.Container.ID)
	if d.created != nil {
		return nil, status.Errorf(codes.AlreadyExists, "container %q: already exists", r.Container.ID)
	}
	d.created = r.Container
	return &containers.CreateContainerResponse{Container: r.Container}, nil
}

func (d *daemon) List(ctx context.Context, _ *containers.ListContainersRequest) (*containers.ListContainersResponse, error) {
	d.note(ctx, "list")
	return &containers.ListContainersResponse{Containers: []*containers.Container{{ID: "a"}, {ID: "b"}}}, nil
}

func (d *daemon) Get(ctx context.Context, r *containers.GetContainerRequest) (*containers.GetContainerResponse, error) {
	switch {
	case r.ID == "broken":
		return nil, status.Error(codes.Internal, "disk full")
	case d.created == nil:
		return nil, status.Error(codes.NotFound, "no such container")
	}
	return &containers.GetContainerResponse{Container: d.created}, nil
}

// ofTasks is the daemon as the server of tasks: two services have a method Get.
type ofTasks struct {
	tasks.UnimplementedTasksServer
	d *daemon
}

func (o ofTasks) Create(ctx context.Context, r *tasks.CreateTaskRequest) (*tasks.CreateTaskResponse, error) {
	o.d.note(ctx, "create task", r.ContainerID)
	o.d.task = r
	return &tasks.CreateTaskResponse{ContainerID: r.ContainerID, Pid: 7}, nil
}

func (o ofTasks) Start(ctx context.Context, r *tasks.StartRequest) (*tasks.StartResponse, error) {
	o.d.note(ctx, "start", r.ContainerID)
	return nil, status.Error(codes.Unknown, "exec: no such file")
}

func (o ofTasks) Get(context.Context, *tasks.GetRequest) (*tasks.GetResponse, error) {
	if o.d.state == nil {
		return nil, status.Error(codes.NotFound, "no task")
	}
	return &tasks.GetResponse{Process: o.d.state}, nil
}

func (o ofTasks) Kill(ctx context.Context, r *tasks.KillRequest) (*emptypb.Empty, error) {
	all := map[bool]string{true: "all"}[r.All]
	o.d.note(ctx, "kill", r.ContainerID, syscall.Signal(r.Signal).String(), all)
	return &emptypb.Empty{}, o.d.kill
}

func (o ofTasks) Wait(ctx context.Context, r *tasks.WaitRequest) (*tasks.WaitResponse, error) {
	o.d.note(ctx, "wait", r.ContainerID)
	if o.d.state == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &tasks.WaitResponse{ExitStatus: 137}, nil
}

func (o ofTasks) Delete(ctx context.Context, r *tasks.DeleteTaskRequest) (*tasks.DeleteResponse, error) {
	o.d.note(ctx, "delete task", r.ContainerID)
	if o.d.state == nil {
		return nil, status.Error(codes.NotFound, "no task")
	}
	return &tasks.DeleteResponse{ExitStatus: 3}, nil
}

func (d *daemon) Subscribe(r *events.SubscribeRequest, s events.Events_SubscribeServer) error {
	d.note(s.Context(), append([]string{"subscribe"}, r.Filters...)...)
	for _, e := range d.queue {
		if err := s.Send(e); err != nil {
			return err
		}
	}
	return d.end
}

// serve makes a client of d.
func serve(t *testing.T, d *daemon) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	containers.RegisterContainersServer(s, d)
	tasks.RegisterTasksServer(s, ofTasks{d: d})
	events.RegisterEventsServer(s, d)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	c, err := Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return c
}

var web = ID{Namespace: "space", Name: "web"}

func TestCreateAndStart(t *testing.T) {
	ctx, d := t.Context(), &daemon{}
	c := serve(t, d)
	if there, err := c.Exists(ctx, web); there || err != nil {
		t.Errorf("before: %v, %v", there, err)
	}
	spec := []byte(`{"root":{"path":"/containers/web/rootfs"}}`)
	if err := c.Create(ctx, web, spec); err != nil {
		t.Fatal(err)
	}
	if d.created.Runtime.Name != runtime || d.created.Spec.TypeUrl != specType || !bytes.Equal(d.created.Spec.Value, spec) {
		t.Errorf("%v", d.created)
	}
	if there, err := c.Exists(ctx, web); !there || err != nil {
		t.Errorf("after: %v, %v", there, err)
	}
	if _, err := c.Exists(ctx, ID{"space", "broken"}); !errdefs.IsInternal(err) || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("broken: %v", err)
	}
	if err := c.Create(ctx, web, spec); !errdefs.IsAlreadyExists(err) {
		t.Errorf("again: %v", err)
	}
	pid, err := c.CreateTask(ctx, web, Streams{Stdout: "/o", Stderr: "/e"})
	if err != nil || pid != 7 || d.task.Stdout != "/o" || d.task.Stderr != "/e" || d.task.Terminal || d.task.Stdin != "" {
		t.Errorf("pid %d, %v, %v", pid, d.task, err)
	}
	if err := c.Start(ctx, web); err == nil || !strings.Contains(err.Error(), "exec: no such file") {
		t.Errorf("start: %v", err)
	}
	if names, err := c.List(ctx, "other"); err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("%v, %v", names, err)
	}
	want := []string{"space create web", "space create web", "space create task web", "space start web", "other list"}
	if diff := cmp.Diff(want, d.asked); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestRemoveTask(t *testing.T) {
	kill, wait, remove := "space kill web killed all", "space wait web", "space delete task web"
	for _, tt := range []struct {
		name  string
		d     daemon
		asked []string
		err   string
	}{
		{name: "running", d: daemon{state: &task.Process{}}, asked: []string{kill, wait, remove}},
		{name: "ended", d: daemon{state: &task.Process{}, kill: status.Error(codes.NotFound, "process already finished")}, asked: []string{kill, remove}},
		{name: "not there", d: daemon{kill: status.Error(codes.NotFound, "no task")}, asked: []string{kill, remove}},
		{name: "never started", d: daemon{state: &task.Process{}, kill: status.Error(codes.FailedPrecondition, "created")}, asked: []string{kill, remove}},
		{name: "immortal", d: daemon{state: &task.Process{}, kill: status.Error(codes.Internal, "cgroup frozen")}, asked: []string{kill}, err: "killing the task: cgroup frozen"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := serve(t, &tt.d).RemoveTask(t.Context(), web)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v", err)
			}
			if diff := cmp.Diff(tt.asked, tt.d.asked); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestState(t *testing.T) {
	for _, tt := range []struct {
		process *task.Process
		want    State
	}{
		{&task.Process{Pid: 7, Status: task.Status_RUNNING}, State{Pid: 7, Running: true}},
		{&task.Process{Pid: 7, Status: task.Status_STOPPED, ExitStatus: 3}, State{Pid: 7, Stopped: true, Status: 3}},
		{&task.Process{Pid: 7, Status: task.Status_CREATED}, State{Pid: 7}},
	} {
		got, err := serve(t, &daemon{state: tt.process}).State(t.Context(), web)
		if err != nil || got != tt.want {
			t.Errorf("%v: %+v, %v", tt.process, got, err)
		}
	}
	if _, err := serve(t, &daemon{}).State(t.Context(), web); !errdefs.IsNotFound(err) {
		t.Errorf("no task: %v", err)
	}
}

// A wait that takes too long says so in Go's own terms.
func TestWait(t *testing.T) {
	if code, err := serve(t, &daemon{state: &task.Process{}}).Wait(t.Context(), web); code != 137 || err != nil {
		t.Errorf("%d, %v", code, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if code, err := serve(t, &daemon{}).Wait(ctx, web); code != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d, %v", code, err)
	}
}

func TestDeleteTask(t *testing.T) {
	if code, err := serve(t, &daemon{state: &task.Process{}}).DeleteTask(t.Context(), web); code != 3 || err != nil {
		t.Errorf("%d, %v", code, err)
	}
	if code, err := serve(t, &daemon{}).DeleteTask(t.Context(), web); code != 0 || !errdefs.IsNotFound(err) {
		t.Errorf("none: %d, %v", code, err)
	}
}

func envelope(t *testing.T, namespace, topic string, m proto.Message) *types.Envelope {
	t.Helper()
	value, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &types.Envelope{Namespace: namespace, Topic: topic, Event: &anypb.Any{Value: value}}
}

func TestFollow(t *testing.T) {
	d := &daemon{queue: []*types.Envelope{
		envelope(t, "space", topicStart, &apievents.TaskStart{ContainerID: "web", Pid: 7}),
		envelope(t, "space", topicExit, &apievents.TaskExit{ContainerID: "web", ID: "shell", Pid: 8, ExitStatus: 1}), // was brought in with exec
		envelope(t, "space", "/tasks/oom", &apievents.TaskOOM{ContainerID: "web"}),
		envelope(t, "other", topicExit, &apievents.TaskExit{ContainerID: "web", ID: "web", Pid: 7, ExitStatus: 3}),
		envelope(t, "space", topicDelete, &apievents.ContainerDelete{ID: "web"}),
	}}
	follow := func() (heard []Event, err error) {
		err = serve(t, d).Follow(t.Context(), func(e Event) { heard = append(heard, e) })
		return heard, err
	}
	heard, err := follow()
	if !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	want := []Event{{ID: web, Pid: 7}, {ID: ID{"other", "web"}, Pid: 7, Ended: true, Status: 3}, {ID: web, Removed: true}}
	if diff := cmp.Diff(want, heard); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{`subscribe topic=="/tasks/start" topic=="/tasks/exit" topic=="/containers/delete"`}, d.asked); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	d.queue, d.end = []*types.Envelope{{Topic: topicExit, Event: &anypb.Any{Value: []byte{0xff}}}}, nil
	if heard, err := follow(); err == nil || len(heard) > 0 || !strings.Contains(err.Error(), topicExit) {
		t.Errorf("a broken event: %v, %v", heard, err)
	}
	d.queue, d.end = nil, status.Error(codes.Unavailable, "going down")
	if _, err := follow(); !errdefs.IsUnavailable(err) {
		t.Errorf("going down: %v", err)
	}
}

// A socket that nobody serves fails at the first call, not before, and not late.
func TestNobodyThere(t *testing.T) {
	c, err := Dial(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.List(t.Context(), "space"); !errdefs.IsUnavailable(err) {
		t.Errorf("%v", err)
	}
}
