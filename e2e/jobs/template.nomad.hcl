# A task whose two templates follow a Nomad variable: one runs a script in the task when it changes, the other signals it.

job "template" {
  type = "service"

  update {
    min_healthy_time  = "0s"
    healthy_deadline  = "45s"
    progress_deadline = "1m"
    health_check      = "task_states"
  }

  group "template" {
    task "main" {
      driver       = "promptflow"
      kill_timeout = "1s"

      config {
        environment = "busybox"
        command     = "/bin/sh"
        args        = ["/local/main.sh"]
      }

      template {
        destination = "local/main.sh"

        data = <<-SCRIPT
          trap 'cp /local/word /local/signalled' HUP
          while true; do sleep 0.2; done
        SCRIPT
      }

      template {
        destination   = "local/word"
        data          = "{{ with nomadVar \"nomad/jobs/template\" }}{{ .word }}{{ end }}"
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }

      # An agent knows templates by their content, which must therefore differ.
      template {
        destination = "local/text"
        data        = "text: {{ with nomadVar \"nomad/jobs/template\" }}{{ .word }}{{ end }}"
        change_mode = "script"

        change_script {
          command       = "/bin/cp"
          args          = ["/local/text", "/local/scripted"]
          timeout       = "10s"
          fail_on_error = true
        }
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
